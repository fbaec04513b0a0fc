// Checks the page in Chromium: check.mjs BIN WORK SHOTS.
import { chromium } from 'playwright-core';
import { spawn, execFileSync } from 'node:child_process';
import { createServer } from 'node:net';
import { createRequire } from 'node:module';
import { mkdirSync, openSync, readFileSync, existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const [bin, work, shots] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const widths = [[1440, 1000], [800, 1000], [390, 844]];
const patience = 60_000;
const running = [];
let passed = 0, failed = 0;

function check(what, ok, why = '') {
  if (ok) passed++; else failed++;
  console.log(`${ok ? 'ok  ' : 'FAIL'} ${what}${ok ? '' : `: ${typeof why === 'string' ? why : JSON.stringify(why)}`}`);
}

function start(name, command, args) {
  const out = openSync(`${work}/${name}.log`, 'w');
  const p = spawn(`${bin}/${command}`, args, { stdio: ['ignore', out, out] });
  running.push(p);
  return p;
}

async function until(what, ok) {
  for (const end = Date.now() + patience; ;) {
    const got = await Promise.resolve().then(ok).catch(() => null);
    if (got) return got;
    if (Date.now() > end) throw new Error(`waited in vain for ${what}`);
    await sleep(100);
  }
}

const said = (name, pattern) => until(`${name} to be ready`, () => readFileSync(`${work}/${name}.log`, 'utf8').match(pattern)?.[1]);

const freePort = () => new Promise((resolve, reject) => {
  const s = createServer().on('error', reject).listen(0, '127.0.0.1', () => { const { port } = s.address(); s.close(() => resolve(port)); });
});

async function swarm() {
  start('hub', 'hubserver', ['-listen', '127.0.0.1:0', '-generate', 'org/name=96MiB:3:4', '-generate', 'datasets/org/other=8MiB:1:2']);
  const hub = await said('hub', /endpoint=(\S+)/);
  execFileSync(`${bin}/p2pagent`, ['keygen', `${work}/key`], { stdio: 'ignore' });
  const gossip = await freePort(), addrs = [];
  for (let i = 0; i < 3; i++) {
    addrs.push(`127.0.0.1:${await freePort()}`);
    start(`agent${i}`, 'p2pagent', ['agent', '--swarm-key-file', `${work}/key`, '--bind', '127.0.0.1', '--gossip-port', i ? await freePort() : gossip, '--swarm-port', 0,
      '--hub-cache', `${work}/hub${i}`, '--state-dir', `${work}/state${i}`, '--socket', `${work}/s${i}`, '--hub-endpoint', hub, '--gateway', `127.0.0.1:${await freePort()}`,
      '--metrics-addr', addrs[i], '--label', `node=node${i}`, '--upstream-limit', '6MB', ...(i ? ['--join', `127.0.0.1:${gossip}`] : [])].map(String));
  }
  for (const a of addrs) await until(`${a} to be ready`, async () => (await fetch(`http://${a}/readyz`)).ok);
  return addrs.map(a => `http://${a}/`);
}

const fetching = (i, ref) => new Promise(resolve => spawn(`${bin}/p2pagent`, ['fetch', ref, '--format', 'quiet', '--socket', `${work}/s${i}`], { stdio: 'ignore' }).on('exit', resolve));

// open shows the page in a window of its own and notes all that it must not do.
async function open(browser, url, [width, height], colorScheme) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme });
  const page = await context.newPage();
  const faults = [], origin = new URL(url).origin;
  page.on('console', m => faults.push(`console ${m.type()}: ${m.text()}`));
  page.on('pageerror', e => faults.push(`error: ${e.message}`));
  page.on('dialog', d => { faults.push(`dialog: ${d.message()}`); d.dismiss(); });
  page.on('request', r => { if (new URL(r.url()).origin !== origin) faults.push(`request to ${r.url()}`); });
  page.on('requestfailed', r => faults.push(`failed: ${r.url()} ${r.failure()?.errorText}`));
  await page.goto(url);
  await page.waitForFunction(() => document.getElementById('live').dataset.state === 'ok', null, { timeout: patience });
  return { page, faults, close: () => context.close() };
}

async function violations(page) {
  const session = await page.context().newCDPSession(page); // the policy lets no script in, a debugger may
  await session.send('Runtime.evaluate', { expression: axe });
  const r = await session.send('Runtime.evaluate', { expression: 'axe.run(document, { resultTypes: ["violations"] })', awaitPromise: true, returnByValue: true });
  return r.result.value.violations.map(v => `${v.id}: ${v.nodes.map(n => n.target.join(' ')).slice(0, 3).join(', ')}`);
}

// look checks the page at every width, dark and light, and takes its picture.
async function look(browser, url, name) {
  for (const size of widths) for (const scheme of ['light', 'dark']) {
    const what = `${name}, ${size[0]} px, ${scheme}`;
    const { page, faults, close } = await open(browser, url, size, scheme);
    await page.waitForFunction(() => !document.getElementById('map').hidden, null, { timeout: patience });
    await page.screenshot({ path: `${shots}/${name}-${size[0]}-${scheme}.png` });
    await page.screenshot({ path: `${shots}/${name}-${size[0]}-${scheme}-full.png`, fullPage: true });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    check(`${what}: nothing is cut off`, wide <= 0, `${wide} px too wide`);
    const bad = await violations(page);
    check(`${what}: axe-core finds nothing`, bad.length === 0, bad);
    check(`${what}: no request elsewhere, no word on the console`, faults.length === 0, faults);
    await close();
  }
}

const text = (page, selector) => page.locator(selector).innerText();

async function live(browser) {
  const [url, , third] = await swarm();
  const { page, faults, close } = await open(browser, url, widths[0], 'light');
  check('an empty cache says what to do', await page.locator('#models-none').isVisible());
  const jobs = [fetching(0, 'org/name'), fetching(1, 'org/name')];
  await page.waitForFunction(() => { const v = +document.querySelector('#model-list .bar')?.getAttribute('aria-valuenow'); return v > 5 && v < 95; }, null, { timeout: patience });
  check('a model under way moves', /from the Hub/.test(await text(page, '#model-list')), await text(page, '#model-list'));
  await page.waitForFunction(() => /a part/.test(document.getElementById('map-text').textContent), null, { timeout: patience });
  await page.screenshot({ path: `${shots}/live-underway.png` });
  check('both fetches end well', (await Promise.all(jobs)).every(code => code === 0));
  await page.waitForFunction(() => /2 of 3 have it/.test(document.getElementById('model-list').innerText) && document.getElementById('copies').textContent === '1.00', null, { timeout: patience });
  check('the fleet paid one copy', (await text(page, '#copies')) === '1.00');
  check('the end was said aloud', /org\/name@main is here/.test(await page.locator('#news').textContent()));
  await page.waitForFunction(() => /2 hold all, 0 a part, 1 nothing/.test(document.getElementById('map-text').textContent), null, { timeout: patience });
  check('who holds what is told in words', true);
  const bytes = await page.evaluate(async () => (await (await fetch('/page/state')).text()).length);
  check('the state of three members is small', bytes < 20_000, bytes);
  await fetching(0, 'datasets/org/other');
  const other = await open(browser, third, widths[0], 'dark');
  await other.page.waitForFunction(() => /not on this node/.test(document.getElementById('model-list').innerText), null, { timeout: patience });
  check('a member shows what only others hold', true);
  check('no request elsewhere, no word on the console', faults.length + other.faults.length === 0, [...faults, ...other.faults]);
  await other.close();
  await look(browser, url, 'live');
  running.find(p => p.spawnargs.includes(new URL(url).host)).kill('SIGKILL');
  await page.waitForFunction(() => document.getElementById('live').dataset.state === 'lost', null, { timeout: patience });
  check('an agent that is gone is told', /does not answer/.test(await text(page, '#notice')));
  await close();
}

// walk presses Tab through the whole page and returns what had the focus.
async function walk(page) {
  const seen = [];
  for (let i = 0; i < 60; i++) {
    await page.keyboard.press('Tab');
    const at = await page.evaluate(() => {
      const e = document.activeElement, s = getComputedStyle(e);
      return e === document.body ? null : { name: e.id || e.dataset.sort || e.textContent.trim().slice(0, 30), ring: s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2 };
    });
    if (!at) break;
    seen.push(at);
  }
  return seen;
}

async function thousand(browser) {
  start('feed', 'pagefeed', ['-members', '1000']);
  const url = await said('feed', /page=(\S+)/);
  await look(browser, url, 'thousand');
  const { page, faults, close } = await open(browser, url, widths[0], 'light');
  await page.waitForFunction(() => document.querySelectorAll('#members tbody canvas').length > 0, null, { timeout: patience });
  const full = await fetch(new URL('/page/state', url)), raw = await full.text();
  check('1,000 members are sent once, small', raw.length < 120_000, raw.length);
  const delta = await page.evaluate(async () => {
    const s = await (await fetch('/page/state')).json();
    return (await (await fetch(`/page/state?epoch=${s.epoch}&since=${s.version}`)).text()).length;
  });
  check('and what is new to a viewer is less', delta < raw.length / 2, delta);
  check('the table shows a page of them', await page.locator('#members tbody tr').count() === 25 && /1–25 of 1,000/.test(await text(page, '#range')), await text(page, '#range'));
  check('names that are markup are text', await page.locator('#members script, #members img, #model-list script, #model-list img').count() === 0
    && (await text(page, '#members tbody')).includes('<script>alert(1)</script>') && (await text(page, '#model-list')).includes('<script>alert(1)</script>'));
  await page.fill('#filter', 'right');
  check('marks that reorder text are written out', (await text(page, '#members tbody')).includes('\\u{202e}'), await text(page, '#members tbody'));
  await page.fill('#filter', 'gpu-07');
  check('the filter finds', /^gpu-07-00\b/.test(await text(page, '#members tbody')) && await page.locator('#members tbody tr').count() === 24, await text(page, '#members tbody'));
  await page.fill('#filter', '');
  await page.selectOption('#kind', 'banned');
  check('bans are found, with their reason', /banned\s*sent a bad piece, until/.test(await text(page, '#members tbody')) && await page.locator('#members tbody tr').count() === 1);
  await page.selectOption('#kind', 'all');

  const fresh = await open(browser, url, widths[0], 'light');
  const seen = await walk(fresh.page), names = seen.map(s => s.name);
  const wanted = ['Skip to the models', 'map-model', 'kind', 'filter', 'name', 'held', 'rate', 'in', 'out', 'state', 'later', '/metrics'];
  check('Tab reaches everything', wanted.every(w => names.includes(w)) && seen.length < 40, names);
  check('and shows where it is', seen.every(s => s.ring), seen.filter(s => !s.ring));
  await fresh.page.evaluate(() => document.querySelector('main').append(Object.assign(document.createElement('input'), { type: 'text' })));
  check('axe-core finds a field without a label', (await violations(fresh.page)).some(v => v.startsWith('label')), await violations(fresh.page));
  await fresh.close();
  await page.locator('#later').focus();
  await page.keyboard.press('Enter');
  check('Enter turns the page', /26–50/.test(await text(page, '#range')), await text(page, '#range'));
  await page.locator('[data-sort=held]').focus();
  await page.keyboard.press('Space');
  check('Space sorts', await page.locator('th[aria-sort=descending] [data-sort=held]').count() === 1);
  const pick = page.locator('.pick', { hasText: 'Qwen3' });
  await pick.focus();
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => /256 hold all/.test(document.getElementById('map-text').textContent), null, { timeout: patience });
  await sleep(3500);
  check('a choice and the focus outlive what is new', await pick.getAttribute('aria-pressed') === 'true' && await pick.evaluate(e => e === document.activeElement));
  await page.setViewportSize({ width: 1440, height: 1000 });
  const cost = await cpu(page);
  check(`watching 1,000 members costs the browser ${cost.toFixed(1)} % of a core`, cost < 15);
  check('nothing moves by itself', await page.evaluate(() => document.getAnimations().length) === 0);
  check('no request elsewhere, no word on the console', faults.length === 0, faults);
  await close();

  const bare = await (await browser.newContext({ javaScriptEnabled: false })).newPage();
  await bare.goto(url);
  check('without scripts it says so', /scripts are off/.test(await bare.locator('main').innerText()));
}

// cpu is what the page's own thread takes of a core over five seconds.
async function cpu(page) {
  const session = await page.context().newCDPSession(page);
  await session.send('Performance.enable');
  const busy = async () => (await session.send('Performance.getMetrics')).metrics.find(m => m.name === 'TaskDuration').value;
  const before = await busy();
  await sleep(5000);
  return 100 * (await busy() - before) / 5;
}

mkdirSync(shots, { recursive: true });
const browser = await chromium.launch({ executablePath: ['/usr/bin/chromium', '/usr/bin/chromium-browser'].find(existsSync) ?? 'chromium', args: ['--no-sandbox'] });
try {
  if (process.env.ONLY !== "thousand") await live(browser);
  await thousand(browser);
} catch (e) {
  check('the checks run to their end', false, e.stack);
} finally {
  await browser.close();
  for (const p of running) p.kill('SIGTERM');
  await Promise.all(running.map(p => p.exitCode !== null || p.signalCode ? null : new Promise(done => { p.on('exit', done); setTimeout(() => p.kill('SIGKILL'), 12_000).unref(); })));
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed || !passed ? 1 : 0);
