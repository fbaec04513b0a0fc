// How figures and names are said.

// bytes says a number in powers of 1000, as the commands do.
export function bytes(n) {
  if (n < 1000) return `${n} B`;
  let unit = 0;
  for (; n >= 999.5 && unit < 5; unit++) n /= 1000;
  return `${n < 9.95 ? n.toFixed(1) : Math.round(n)} ${' kMGTP'[unit]}B`;
}

export const rate = n => n > 0 ? bytes(n) + '/s' : '–';

export function percent(part, whole) {
  if (!(whole > 0)) return '–';
  const p = 100 * part / whole;
  return p >= 100 ? '100 %' : `${p > 99 ? Math.floor(p * 10) / 10 : Math.floor(p)} %`; // 100 is for what is whole
}

export function span(seconds) {
  const s = Math.round(seconds);
  if (s < 100) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 48 * 3600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} days`;
}

export const count = n => n.toLocaleString('en');
export const many = (n, one, more = one + 's') => `${count(n)} ${n === 1 ? one : more}`;

// clean makes names harmless: marks that hide or reorder text are written out.
export const clean = s => s.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Zl}\p{Zp}]/gu, c => `\\u{${c.codePointAt(0).toString(16)}}`);
