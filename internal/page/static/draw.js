// Everything that is drawn on a canvas. Colours are those of the style sheet.

const colours = new Map();
export const recolour = () => colours.clear();

function colour(name) {
  if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim());
  return colours.get(name);
}

// sheet returns a context in CSS pixels on a canvas of the size that it is shown in.
function sheet(canvas, height) {
  const scale = Math.min(devicePixelRatio || 1, 3);
  if (height) canvas.style.height = height + 'px';
  const w = canvas.clientWidth, h = canvas.clientHeight;
  canvas.width = Math.max(1, Math.round(w * scale));
  canvas.height = Math.max(1, Math.round(h * scale));
  const c = canvas.getContext('2d');
  c.setTransform(canvas.width / Math.max(1, w), 0, 0, canvas.height / Math.max(1, h), 0, 0);
  return { c, w, h };
}

// nice returns the round number at or above n that a scale ends with.
function nice(n) {
  const ten = 10 ** Math.floor(Math.log10(Math.max(n, 1)));
  return ten * [1, 2, 5, 10].find(k => k * ten >= n);
}

// chart draws what came above the line, the Hub's part below that of members, and
// what was sent under it. samples are [at, upstream, in, out], seconds and bytes a second.
export function chart(canvas, samples, now, window, say) {
  const { c, w, h } = sheet(canvas);
  const most = Math.max(1e6, ...samples.map(s => s[1] + s[2]));
  const sent = Math.max(0, ...samples.map(s => s[3]));
  const top = nice(most), low = sent > 0 ? nice(Math.max(sent, top / 4)) : 0;
  const zero = Math.round((h - 8) * top / (top + low)) + 4;
  const x = at => w * (1 - (now - at) / window);
  const y = v => zero - (zero - 4) * v / top;
  const below = v => zero + (h - 4 - zero) * v / (low || 1);

  c.lineWidth = 1;
  c.strokeStyle = colour('rule');
  for (const v of [top, top / 2]) line(c, w, y(v));
  const area = (from, to, ink) => {
    if (samples.length < 2) return;
    c.beginPath();
    samples.forEach((s, i) => i ? c.lineTo(x(s[0]), to(s)) : c.moveTo(x(s[0]), to(s)));
    for (let i = samples.length - 1; i >= 0; i--) c.lineTo(x(samples[i][0]), from(samples[i]));
    c.closePath();
    c.fillStyle = colour(ink);
    c.fill();
  };
  area(() => y(0), s => y(s[1]), 'up');
  area(s => y(s[1]), s => y(s[1] + s[2]), 'in');
  if (low) area(() => zero, s => below(s[3]), 'out');
  c.strokeStyle = colour('strong');
  line(c, w, zero);
  c.fillStyle = colour('soft');
  c.font = '12px system-ui, sans-serif';
  c.textBaseline = 'top';
  c.fillText(say(top), 0, y(top) + 4);
  if (low && h - zero > 30) { c.textBaseline = 'bottom'; c.fillText(say(low), 0, h - 2); }
}

function line(c, w, y) {
  c.beginPath();
  c.moveTo(0, Math.round(y) + .5);
  c.lineTo(w, Math.round(y) + .5);
  c.stroke();
}

// cells paints one strip of levels '0' to '9', runs of equal ones in one go.
function cells(c, levels, x, y, w, h, ink) {
  const n = levels.length;
  for (let i = 0, j; i < n; i = j) {
    for (j = i + 1; j < n && levels[j] === levels[i]; j++);
    const v = +levels[i];
    if (!v) continue;
    c.globalAlpha = .25 + .75 * v / 9;
    c.fillStyle = ink;
    const from = Math.round(x + w * i / n);
    c.fillRect(from, y, Math.max(1, Math.round(x + w * j / n) - from), h);
  }
  c.globalAlpha = 1;
}

export function strip(canvas, levels) {
  const { c, w, h } = sheet(canvas);
  c.fillStyle = colour('track');
  c.fillRect(0, 0, w, h);
  cells(c, levels, 0, 0, w, h, colour('in'));
}

// copies draws for each cell how many members hold it; the cells that fewest hold
// stand out when somebody lacks them.
export function copies(canvas, sums, members) {
  const { c, w, h } = sheet(canvas);
  c.fillStyle = colour('track');
  c.fillRect(0, 0, w, h);
  const n = sums.length, least = Math.min(...sums), some = Math.max(...sums) > least;
  const calm = colour('in'), rare = colour('up');
  sums.forEach((s, i) => {
    const tall = Math.max(s > 0 ? 2 : 0, Math.round(h * s / Math.max(1, members)));
    const from = Math.round(w * i / n);
    c.fillStyle = some && s <= least + .2 ? rare : calm;
    c.fillRect(from, h - tall, Math.round(w * (i + 1) / n) - from, tall);
  });
}

const tallest = 330;

// rows draws one line for each strip; more strips than lines share one, and its
// level is their mean. It returns the height of a line, 0 when they are shared.
export function rows(canvas, strips) {
  const lines = Math.min(strips.length, tallest);
  const tall = Math.max(1, Math.min(18, Math.floor(tallest / lines)));
  const { c, w, h } = sheet(canvas, lines * tall);
  c.fillStyle = colour('track');
  c.fillRect(0, 0, w, h);
  const ink = colour('in'), gap = tall > 4 ? 2 : 0;
  for (let i = 0; i < lines; i++) {
    const from = Math.floor(i * strips.length / lines), to = Math.floor((i + 1) * strips.length / lines);
    cells(c, mean(strips.slice(from, to)), 0, i * tall, w, tall - gap, ink);
  }
  if (gap) {
    c.fillStyle = colour('paper');
    for (let i = 0; i < lines; i++) c.fillRect(0, (i + 1) * tall - gap, w, gap);
  }
  return lines === strips.length ? tall : 0;
}

function mean(strips) {
  if (strips.length === 1) return strips[0].levels;
  let out = '';
  for (let i = 0; i < strips[0].levels.length; i++) {
    let sum = 0;
    for (const s of strips) sum += +s.levels[i];
    out += Math.floor(sum / strips.length);
  }
  return out;
}
