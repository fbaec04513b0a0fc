// Asks the agent for what is new and shows it. Text gets into the document as
// text, never as markup.
import { bytes, rate, percent, span, count, many, clean } from './text.js';
import * as draw from './draw.js';

const $ = id => document.getElementById(id);
const busyEvery = 1000, idleEvery = 3000, patience = 8000; // ms
const pageSize = 25;

const known = { epoch: 0, version: 0, self: null, counts: null, hidden: {}, every: 5, now: 0, models: new Map(), members: new Map(), samples: [] };
const view = { model: '', chosen: false, map: null, mapAt: 0, sort: 'name', down: false, filter: '', kind: 'all', page: 0 };
const scheme = matchMedia('(prefers-color-scheme: dark)');
let timer = 0, lastAnswer = 0;

// el makes an element; text is text, whoever wrote it.
function el(tag, props = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(props)) {
    if (k === 'class') e.className = v;
    else if (k.startsWith('on')) e.addEventListener(k.slice(2), v);
    else if (v !== undefined && v !== false) e.setAttribute(k, v === true ? '' : v);
  }
  e.append(...children.filter(c => c !== null && c !== undefined && c !== ''));
  return e;
}

// put replaces text only where it changed: a selection and a screen reader's place stay.
function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// ---- what the agent says

async function ask(path) {
  const r = await fetch(path, { signal: AbortSignal.timeout(patience), cache: 'no-store' });
  if (!r.ok) throw new Error((await r.text()).trim() || r.statusText);
  return r.json();
}

function take(s) {
  if (s.full) { known.models.clear(); known.members.clear(); known.samples = []; }
  const first = known.version === 0 || s.epoch !== known.epoch;
  const before = new Map([...known.models].map(([id, m]) => [id, m.state]));
  Object.assign(known, { epoch: s.epoch, version: s.version, self: s.self, counts: s.counts, hidden: s.hidden, every: s.every, now: s.now });
  for (const id of s.gone_models || []) known.models.delete(id);
  for (const id of s.gone_members || []) known.members.delete(id);
  for (const m of s.models) known.models.set(m.id, m);
  for (const m of s.members) known.members.set(m.id, m);
  const last = known.samples.at(-1)?.[0] ?? 0;
  known.samples.push(...s.samples.filter(x => x[0] > last));
  known.samples = known.samples.slice(-180);
  if (!first) tell(before);
}

// tell says aloud what is worth it: models that came or failed.
function tell(before) {
  const news = [];
  for (const m of known.models.values()) {
    const was = before.get(m.id);
    if (was === m.state) continue;
    if (m.state === 'done') news.push(`${clean(m.ref)} is here.`);
    if (m.state === 'failed') news.push(`${clean(m.ref)} failed.`);
    if (was === undefined && running(m)) news.push(`${clean(m.ref)} is being fetched.`);
  }
  if (news.length) put($('news'), news.slice(0, 3).join(' '));
}

async function poll() {
  clearTimeout(timer);
  if (document.hidden) return; // visibilitychange goes on
  let wait = idleEvery;
  try {
    take(await ask(`/page/state?epoch=${known.epoch}&since=${known.version}`));
    lastAnswer = Date.now();
    if (moving()) wait = busyEvery;
    show();
    await pollMap();
  } catch (e) {
    wait = 2 * idleEvery;
    showLost(e);
  }
  timer = setTimeout(poll, wait);
}

async function pollMap() {
  const id = view.model;
  if (!known.models.has(id)) { view.map = null; return showMap(); }
  const every = moving() ? 2000 : 10000;
  if (view.map?.model === id && Date.now() - view.mapAt < every) return;
  const m = await ask('/page/map?model=' + encodeURIComponent(id)).catch(() => null);
  if (id !== view.model) return;
  const same = m && view.map?.model === id && JSON.stringify(m.strips) === view.map.key;
  view.mapAt = Date.now();
  if (same) return;
  view.map = m && { key: JSON.stringify(m.strips), ...m, strips: m.strips.map(([id, name, levels]) => ({ id, name, levels, held: [...levels].reduce((n, c) => n + +c, 0) / 9 })) };
  showMap();
  showMembers();
}

const running = m => !['done', 'failed', 'ready', 'part', 'elsewhere'].includes(m.state);
const moving = () => known.self.asked < known.self.near / 2 || [...known.models.values()].some(m => running(m) || m.fleet.partly > 0) || (known.samples.at(-1)?.slice(1).some(v => v > 0) ?? false);

// ---- showing it

function show() {
  pick();
  showTop();
  showCopies();
  showChart();
  showModels();
  showMembers();
}

function showTop() {
  const s = known.self;
  put($('name'), clean(s.name) || s.id);
  document.title = `${clean(s.name)} · p2pagent`;
  put($('about'), `in a swarm of ${count(s.members + 1)}`);
  $('live').dataset.state = 'ok';
  put($('live-text'), 'live');
  const notice = s.join_fault ? `No member was joined: ${clean(s.join_fault)}` : s.waiting ? `Waiting for ${clean(s.waiting)}` : !s.settled ? 'Looking for the other members.' : '';
  put($('notice'), notice);
  $('notice').hidden = !notice;
  put($('foot'), `p2pagent ${s.version}, up ${span(known.now - Date.parse(s.started) / 1000)} · cache ${bytes(s.cache)}, ${bytes(s.free)} free · ${s.upstream ? 'may ask the Hub' : 'never asks the Hub'}`);
}

function showLost(e) {
  $('live').dataset.state = 'lost';
  put($('live-text'), lastAnswer ? `no answer for ${span((Date.now() - lastAnswer) / 1000)}` : 'no answer');
  put($('notice'), `The agent does not answer (${clean(e.message)}). What you see is from ${lastAnswer ? new Date(lastAnswer).toLocaleTimeString() : 'never'}.`);
  $('notice').hidden = false;
}

// showCopies says what the fleet is run for: bytes from upstream, divided by those of
// the models. It counts those that are whole somewhere, or else those under way,
// and of both only what some member still knows the cost of.
function showCopies() {
  const costly = [...known.models.values()].map(m => m.fleet).filter(f => f.upstream > 0 && f.size > 0);
  const whole = costly.filter(f => f.ready > 0), counted = whole.length ? whole : costly;
  const up = counted.reduce((n, f) => n + f.upstream, 0), size = counted.reduce((n, f) => n + f.size, 0), s = known.self;
  const level = !counted.length ? 'none' : up / size > 1.2 ? 'high' : whole.length ? 'well' : 'growing';
  $('copies').closest('.copies').dataset.level = level;
  put($('copies'), counted.length ? (up / size).toFixed(2) : '–');
  const who = s.answered === s.members ? many(s.members + 1, 'member') : `${count(s.answered + 1)} of ${many(s.members + 1, 'member')}, those that answer this node`;
  const said = `The Hub sent ${bytes(up)} for ${many(counted.length, 'model')} of ${bytes(size)} on ${who}`;
  put($('copies-text'), {
    none: `What the Hub sent, divided by the size of the models. Of ${who} none has fetched since it started.`,
    growing: `${said}, so far. One is the aim.`,
  }[level] ?? `${said}. One is the aim.`);
}

function showChart() {
  const last = known.samples.at(-1) || [0, 0, 0, 0];
  put($('rate-up'), rate(last[1]));
  put($('rate-in'), rate(last[2]));
  put($('rate-out'), rate(last[3]));
  const first = known.samples[0]?.[0] ?? known.now, window = [120, 300, 900].find(w => known.now - first <= w) ?? 900;
  put($('window'), `last ${span(window)}`);
  put($('window-start'), `${span(window)} ago`);
  draw.chart($('chart'), known.samples, Math.max(known.now, last[0]), window, rate);
  const c = known.counts;
  $('chart').setAttribute('aria-label', `Now ${rate(last[1])} from the Hub, ${rate(last[2])} from members, ${rate(last[3])} to members. `
    + `Since the start ${bytes(c.upstream)}, ${bytes(c.in)} and ${bytes(c.out)}.`);
}

// order: what moves first, then by name.
const byModel = (a, b) => running(b) - running(a) || a.ref.localeCompare(b.ref) || a.commit.localeCompare(b.commit);

function pick() {
  if (view.chosen && known.models.has(view.model)) return;
  const best = [...known.models.values()].sort(byModel)[0];
  if (best?.id !== view.model) { view.model = best?.id ?? ''; view.chosen = false; }
}

function choose(id) {
  Object.assign(view, { model: id, chosen: true, map: null, page: 0 });
  showModels();
  showMap();
  poll();
}

const rowsOf = new Map(); // of models, by id, so that a button keeps its focus

function showModels() {
  const list = [...known.models.values()].sort(byModel), ul = $('model-list');
  for (const [id, row] of rowsOf) if (!known.models.has(id)) { row.li.remove(); rowsOf.delete(id); }
  list.forEach((m, i) => {
    const row = rowsOf.get(m.id) || newModel(m);
    fill(row, m);
    if (ul.children[i] !== row.li) ul.insertBefore(row.li, ul.children[i] ?? null);
  });
  $('models-none').hidden = list.length > 0;
  options(list);
}

function newModel(m) {
  const r = { pick: el('button', { class: 'pick', type: 'button', onclick: () => choose(m.id) }), sub: el('p', { class: 'sub' }) };
  for (const k of ['here', 'up', 'in']) r[k] = el('i', { class: k });
  r.bar = el('div', { class: 'bar', role: 'progressbar', 'aria-valuemin': '0', 'aria-valuemax': '100' }, r.here, r.up, r.in);
  r.done = el('b');
  r.parts = el('span');
  r.pace = el('span');
  r.ready = el('b');
  r.fleet = el('span');
  r.li = el('li', {}, el('div', {}, r.pick, r.sub),
    el('div', { class: 'progress' }, r.bar, el('p', { class: 'split' }, el('span', {}, r.done, ' ', r.parts), r.pace)),
    el('p', { class: 'fleet' }, r.ready, el('br'), r.fleet));
  rowsOf.set(m.id, r);
  return r;
}

const states = { ready: 'here', done: 'here', part: 'partly here', elsewhere: 'not on this node', failed: 'failed' };

function fill(r, m) {
  const at = m.ref.indexOf('@'), repo = at < 0 ? m.ref : m.ref.slice(0, at), slash = repo.lastIndexOf('/') + 1;
  const title = clean(m.ref);
  if (r.title !== title) {
    r.title = title;
    r.pick.replaceChildren(el('span', { class: 'org' }, clean(repo.slice(0, slash))), clean(repo.slice(slash)), el('span', { class: 'org' }, clean(at < 0 ? '' : m.ref.slice(at))));
  }
  r.pick.setAttribute('aria-pressed', m.id === view.model);
  const why = m.reason || m.waiting;
  put(r.sub, `${m.commit.slice(0, 12)} · ${states[m.state] ?? m.state}${why ? (m.reason ? ': ' : ', waiting for ') + clean(why) : ''}`);
  r.sub.classList.toggle('bad', m.state === 'failed');

  const whole = Math.max(m.total, 1);
  const here = Math.min(m.here, m.completed);
  const net = Math.max(0, m.completed - here), sum = m.upstream + m.peers || 1;
  const width = (node, n) => { node.style.width = `${100 * n / whole}%`; };
  width(r.here, here);
  width(r.up, net * m.upstream / sum);
  width(r.in, net * m.peers / sum);
  const done = m.total ? percent(m.completed, m.total) : m.completed ? bytes(m.completed) : '–';
  const parts = [m.upstream && `${bytes(m.upstream)} from the Hub`, m.peers && `${bytes(m.peers)} from members`, here && `${bytes(here)} here already`].filter(Boolean);
  r.bar.hidden = m.state === 'elsewhere';
  put(r.done, r.bar.hidden ? bytes(m.fleet.size) : m.total ? `${done} of ${bytes(m.total)}` : done);
  put(r.parts, parts.join(', '));
  put(r.pace, running(m) && m.rate ? `${rate(m.rate)}${m.eta ? `, ${span(m.eta)} left` : ''}` : '');
  r.bar.setAttribute('aria-valuenow', Math.floor(100 * m.completed / whole));
  r.bar.setAttribute('aria-valuetext', `${done}${parts.length ? ': ' + parts.join(', ') : ''}`);
  r.bar.setAttribute('aria-label', `Progress of ${title}`);

  const f = m.fleet, known_ = known.self.answered + 1;
  put(r.ready, `${count(f.ready)} of ${count(known_)} have it`);
  put(r.fleet, [f.partly && `${count(f.partly)} under way`, f.upstream && f.size && `${(f.upstream / f.size).toFixed(2)} upstream copies${f.ready ? '' : ' so far'}`].filter(Boolean).join(', ') || 'cost not known any more');
}

let optionKey = '';
function options(list) {
  const select = $('map-model'), key = JSON.stringify(list.map(m => [m.id, m.ref]).sort());
  if (key !== optionKey) {
    optionKey = key;
    const twice = new Set(list.map(m => m.ref).filter((r, i, all) => all.indexOf(r) !== i));
    select.replaceChildren(...[...list].sort((a, b) => a.ref.localeCompare(b.ref)).map(m =>
      el('option', { value: m.id }, clean(m.ref) + (twice.has(m.ref) ? ` (${m.commit.slice(0, 8)})` : ''))));
  }
  select.value = view.model;
}

function showMap() {
  const m = view.map, box = $('map');
  box.hidden = !m?.strips.length || !m.cells;
  if (box.hidden) return put($('map-text'), !view.model ? 'Nothing is held yet.' : m ? 'No member said that it holds anything of it.' : 'Asking the members …');
  const strips = [...m.strips].sort((a, b) => b.held - a.held || a.name.localeCompare(b.name));
  const sums = Array.from({ length: m.cells }, (_, i) => strips.reduce((n, s) => n + +s.levels[i], 0) / 9);
  const all = strips.filter(s => s.held === m.cells).length, none = strips.filter(s => s.held === 0).length;
  const least = Math.min(...sums), part = strips.length - all - none;
  put($('map-text'), `${many(m.pieces, 'piece')}. Of ${many(strips.length, 'member')} that answered ${count(all)} ${all === 1 ? 'holds' : 'hold'} all, ${count(part)} a part, ${count(none)} nothing. `
    + (least >= 1 ? `The rarest stretch is held ${many(Math.floor(least), 'time')}.` : all ? '' : 'Some pieces are held by nobody in sight.') + (m.hidden ? ` ${many(m.hidden, 'member')} more not shown.` : ''));
  draw.copies($('map-copies'), sums, strips.length);
  $('map-copies').setAttribute('aria-label', `Copies of each piece: ${least.toFixed(1)} at least, ${Math.max(...sums).toFixed(1)} at most, of ${strips.length}`);
  const named = strips.length <= 24;
  box.classList.toggle('named', named);
  if (!named) $('map-names').replaceChildren();
  const tall = draw.rows($('map-rows'), strips);
  if (named) {
    $('map-names').replaceChildren(...strips.map(s => { const li = el('li', {}, el('bdi', {}, clean(s.name))); li.style.height = li.style.lineHeight = tall + 'px'; return li; }));
    draw.rows($('map-rows'), strips); // the names took their room
  }
  $('map-rows').setAttribute('aria-label', `One line for each member, those that hold most on top; the column Holds of the table of members says the same`);
}

// ---- members

const stateOf = m => m.banned ? 'banned' : m.fault && !m.near ? 'unreachable' : m.near ? (m.silent ? 'silent' : 'neighbour') : 'in sight';
const keys = {
  name: m => m.name.toLowerCase(), held: m => m.held ?? -1, rate: m => m.rate, in: m => m.in, out: m => m.out,
  state: m => ['banned', 'unreachable', 'silent', 'in sight', 'neighbour'].indexOf(stateOf(m)),
};
const kinds = { all: () => true, moving: m => m.rate > 0 || m.in > 0 || m.out > 0, banned: m => m.banned, far: m => !m.near };

function listed() {
  const strips = new Map((view.map?.model === view.model && view.map?.strips || []).map(s => [s.id, s]));
  const cells = view.map?.cells || 1, need = view.filter.toLowerCase();
  const list = [];
  for (const m of known.members.values()) {
    if (!kinds[view.kind](m) || need && !m.name.toLowerCase().includes(need) && !m.id.toLowerCase().includes(need)) continue;
    const s = strips.get(m.id);
    list.push({ ...m, strip: s, held: s ? s.held / cells : undefined });
  }
  const key = keys[view.sort], sign = view.down ? -1 : 1;
  const cmp = (a, b) => a < b ? -1 : a > b ? 1 : 0;
  return list.sort((a, b) => sign * cmp(key(a), key(b)) || cmp(a.name, b.name) || cmp(a.id, b.id));
}

function showMembers() {
  const list = listed(), pages = Math.max(1, Math.ceil(list.length / pageSize));
  view.page = Math.min(view.page, pages - 1);
  const from = view.page * pageSize, rows = list.slice(from, from + pageSize);
  const s = known.self;
  put($('members-count'), `${many(s.members, 'other')}, ${count(s.near)} with a stream${known.hidden.members ? `, ${count(known.hidden.members)} not shown` : ''}`);
  put($('range'), list.length ? `${count(from + 1)}–${count(from + rows.length)} of ${count(list.length)}` : '');
  $('pages').hidden = pages === 1;
  $('earlier').disabled = view.page === 0;
  $('later').disabled = view.page === pages - 1;
  put($('members-none'), known.members.size ? 'No member is like that.' : 'This node is alone.');
  $('members-none').hidden = list.length > 0;
  $('members').hidden = list.length === 0;
  const body = $('members').tBodies[0];
  while (lines.length < rows.length) lines.push(newLine());
  rows.forEach((m, i) => fillLine(lines[i], m));
  const had = body.rows.length;
  for (let i = had; i < rows.length; i++) body.append(lines[i].tr);
  for (let i = had; i > rows.length; i--) body.rows[i - 1].remove();
  drawStrips(lines.slice(0, rows.length));
}

const lines = []; // of the table, used again: what does not change is not touched

function newLine() {
  const l = { name: el('bdi'), id: el('span', { class: 'id' }), strip: el('canvas', { 'aria-hidden': 'true' }), held: el('span') };
  for (const c of ['num rate', 'num wide', 'num wide']) (l.cells ??= []).push(el('td', { class: c }));
  l.state = el('td', { class: 'state' });
  l.tr = el('tr', {}, el('th', { scope: 'row' }, l.name, ' ', l.id), el('td', { class: 'holds' }, el('div', {}, l.strip, l.held)), ...l.cells, l.state);
  return l;
}

function fillLine(l, m) {
  put(l.name, clean(m.name));
  put(l.id, m.id);
  put(l.held, m.strip ? percent(m.held, 1) : 'not known');
  l.levels = m.strip?.levels ?? '';
  [rate(m.rate), m.in ? bytes(m.in) : '–', m.out ? bytes(m.out) : '–'].forEach((t, i) => put(l.cells[i], t));
  const said = JSON.stringify([m.banned, m.until, m.near, m.silent, m.fault]);
  if (l.said !== said) { l.said = said; l.state.replaceChildren(...state(m)); }
}

// drawStrips draws those that changed: first all sizes are read, so that the browser
// lays the table out once.
function drawStrips(all) {
  const due = all.map(l => [l, l.strip.clientWidth]).filter(([l, w]) => w && (l.drawn !== l.levels || l.width !== w || l.scheme !== scheme.matches));
  for (const [l, w] of due) {
    Object.assign(l, { drawn: l.levels, width: w, scheme: scheme.matches });
    draw.strip(l.strip, l.levels);
  }
}

function state(m) {
  if (m.banned) return [el('span', { class: 'tag' }, 'banned'), `${clean(m.banned)}${m.until ? `, until ${new Date(m.until).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })}` : ''}`];
  if (m.near) return [m.silent ? `silent for ${span(m.silent)}` : 'neighbour'];
  return [m.fault ? `no stream: ${clean(m.fault)}` : 'in sight'];
}

// ---- what a viewer does

for (const b of document.querySelectorAll('th button')) {
  b.addEventListener('click', () => {
    const by = b.dataset.sort;
    view.down = view.sort === by ? !view.down : ['held', 'rate', 'in', 'out'].includes(by);
    Object.assign(view, { sort: by, page: 0 });
    for (const th of document.querySelectorAll('#members thead th')) th.removeAttribute('aria-sort');
    b.parentElement.setAttribute('aria-sort', view.down ? 'descending' : 'ascending');
    showMembers();
  });
}
$('filter').addEventListener('input', e => { Object.assign(view, { filter: e.target.value.trim(), page: 0 }); showMembers(); });
$('kind').addEventListener('change', e => { Object.assign(view, { kind: e.target.value, page: 0 }); showMembers(); });
$('map-model').addEventListener('change', e => choose(e.target.value));
$('earlier').addEventListener('click', () => { view.page--; showMembers(); });
$('later').addEventListener('click', () => { view.page++; showMembers(); });
document.addEventListener('visibilitychange', () => { if (!document.hidden) poll(); });

function redraw() {
  if (!known.self) return;
  draw.recolour();
  showChart();
  showMap();
  showMembers();
}
scheme.addEventListener('change', redraw);
let width = innerWidth;
addEventListener('resize', () => { if (innerWidth !== width) { width = innerWidth; redraw(); } });

poll();
