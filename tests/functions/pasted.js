// Functions as people paste them, each behind its name. test_pasted.py runs them here and in Node.
//# openai_stream
export default async (input, ctx) => {
  const res = await fetch('https://api.openai.com/v1/chat/completions', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${ctx.env.OPENAI_API_KEY}` },
    body: JSON.stringify({ model: 'gpt-4o-mini', stream: true, messages: [{ role: 'user', content: input.prompt }] }),
  });
  if (!res.ok) throw new Error(`OpenAI ${res.status}: ${await res.text()}`);
  const reader = res.body.getReader();
  const decoder = new TextDecoder();
  let buffer = '', out = '';
  while (true) {
    const { done, value } = await reader.read();
    if (done) break;
    buffer += decoder.decode(value, { stream: true });
    const lines = buffer.split('\n');
    buffer = lines.pop() ?? '';
    for (const line of lines) {
      if (!line.startsWith('data: ')) continue;
      const data = line.slice(6).trim();
      if (data === '[DONE]') return { out };
      out += JSON.parse(data).choices[0]?.delta?.content ?? '';
    }
  }
  return { out };
};
//# anthropic_stream
async function* sse(res) {
  let buf = '';
  for await (const chunk of res.body.pipeThrough(new TextDecoderStream())) {
    buf += chunk;
    let i;
    while ((i = buf.indexOf('\n\n')) >= 0) {
      const ev = {};
      for (const line of buf.slice(0, i).split('\n')) {
        const [k, ...v] = line.split(': ');
        ev[k] = v.join(': ');
      }
      yield ev;
      buf = buf.slice(i + 2);
    }
  }
}
export default async function (input, env) {
  const r = await fetch('https://api.anthropic.com/v1/messages', {
    method: 'POST',
    headers: new Headers({ 'x-api-key': env.ANTHROPIC_API_KEY, 'anthropic-version': '2023-06-01', 'content-type': 'application/json' }),
    body: JSON.stringify({ stream: true }),
  });
  let text = '';
  for await (const ev of sse(r)) {
    if (ev.event === 'content_block_delta') text += JSON.parse(ev.data).delta.text;
    if (ev.event === 'message_stop') break;
  }
  return text;
}
//# stripe
const enc = new TextEncoder();
const hex = (buf) => [...new Uint8Array(buf)].map((b) => b.toString(16).padStart(2, '0')).join('');
function timingSafeEqual(a, b) {
  if (a.length !== b.length) return false;
  let diff = 0;
  for (let i = 0; i < a.length; i++) diff |= a.charCodeAt(i) ^ b.charCodeAt(i);
  return diff === 0;
}
export default async (input, { env }) => {
  const header = Object.fromEntries(input.headers['stripe-signature'].split(',').map((kv) => kv.split('=')));
  const key = await crypto.subtle.importKey('raw', enc.encode(env.STRIPE), { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
  const mac = hex(await crypto.subtle.sign('HMAC', key, enc.encode(`${header.t}.${input.body}`)));
  if (!timingSafeEqual(mac, header.v1)) return new Response('bad signature ' + mac, { status: 400 });
  return Response.json({ received: true });
};
//# slack
async (input, ctx) => {
  const base = `v0:${input.ts}:${input.body}`;
  const key = await crypto.subtle.importKey("raw", new TextEncoder().encode(ctx.env.STRIPE), { name: "HMAC", hash: { name: "SHA-256" } }, true, ["verify", "sign"]);
  const sig = await crypto.subtle.sign({ name: "HMAC" }, key, new TextEncoder().encode(base));
  const ok = await crypto.subtle.verify("HMAC", key, sig, new TextEncoder().encode(base));
  const params = new URLSearchParams(input.body);
  return { ok, cmd: params.get("command"), all: Object.fromEntries(params), exported: (await crypto.subtle.exportKey("raw", key)).byteLength };
}
//# graphql
const QUERY = /* GraphQL */ `
  query ($owner: String!, $name: String!, $after: String) {
    repository(owner: $owner, name: $name) { issues(first: 2, after: $after) { nodes { number } pageInfo { hasNextPage endCursor } } }
  }`;
async function gql(token, variables) {
  const r = await fetch('https://api.github.com/graphql', { method: 'POST', headers: { authorization: `bearer ${token}`, 'user-agent': 'x' }, body: JSON.stringify({ query: QUERY, variables }) });
  const { data, errors } = await r.json();
  if (errors?.length) throw new AggregateError(errors.map((e) => new Error(e.message)), 'GraphQL failed');
  return data;
}
export default async function issues({ owner, name }, { env }) {
  const found = [];
  for (let after = null, more = true; more; ) {
    const { repository: { issues: { nodes, pageInfo } } } = await gql(env.GITHUB, { owner, name, after });
    found.push(...nodes.map(({ number }) => number));
    ({ hasNextPage: more, endCursor: after } = pageInfo);
  }
  return found;
}
//# s3presign
const enc = new TextEncoder();
async function hmac(key, data) {
  const k = await crypto.subtle.importKey('raw', typeof key === 'string' ? enc.encode(key) : key, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
  return crypto.subtle.sign('HMAC', k, enc.encode(data));
}
const hex = (b) => Array.from(new Uint8Array(b), (x) => x.toString(16).padStart(2, '0')).join('');
const sha256 = async (s) => hex(await crypto.subtle.digest('SHA-256', enc.encode(s)));
const uri = (s) => encodeURIComponent(s).replace(/[!'()*]/g, (c) => '%' + c.charCodeAt(0).toString(16).toUpperCase());
export default async function presign(input, ctx) {
  const now = new Date(Date.UTC(2024, 0, 2, 3, 4, 5)).toISOString().replace(/[:-]|\.\d{3}/g, '');
  const date = now.slice(0, 8);
  const url = new URL(`https://${input.bucket}.s3.eu-central-1.amazonaws.com/${input.key.split('/').map(uri).join('/')}`);
  url.searchParams.set('X-Amz-Algorithm', 'AWS4-HMAC-SHA256');
  url.searchParams.set('X-Amz-Credential', `AKID/${date}/eu-central-1/s3/aws4_request`);
  url.searchParams.set('X-Amz-Date', now);
  url.searchParams.set('X-Amz-Expires', '3600');
  url.searchParams.set('X-Amz-SignedHeaders', 'host');
  url.searchParams.sort();
  const canonical = ['GET', url.pathname, url.search.slice(1).replace(/\+/g, '%20'), `host:${url.host}`, '', 'host', 'UNSIGNED-PAYLOAD'].join('\n');
  const toSign = ['AWS4-HMAC-SHA256', now, `${date}/eu-central-1/s3/aws4_request`, await sha256(canonical)].join('\n');
  let key = 'AWS4' + ctx.env.STRIPE;
  for (const part of [date, 'eu-central-1', 's3', 'aws4_request']) key = await hmac(key, part);
  url.searchParams.set('X-Amz-Signature', hex(await hmac(key, toSign)));
  return url.toString();
}
//# csv
function parseCsv(text) {
  const rows = [[]];
  const re = /(?:"((?:[^"]|"")*)"|([^,\r\n]*))(,|\r?\n|$)/gy;
  let m;
  while (re.lastIndex < text.length && (m = re.exec(text))) {
    rows.at(-1).push(m[1] !== undefined ? m[1].replaceAll('""', '"') : m[2]);
    if (m[3] !== ',') rows.push([]);
  }
  rows.pop();
  const [head, ...rest] = rows;
  return rest.map((r) => Object.fromEntries(head.map((k, i) => [k, r[i]])));
}
export default async () => {
  const res = await fetch(new URL('/data.csv', 'https://files.example'));
  const rows = parseCsv(await res.text());
  const by = Object.groupBy(rows, (r) => r.city);
  return { rows, cities: Object.keys(by), type: res.headers.get('Content-Type') };
};
//# upload_blob
export default async (input, ctx) => {
  const form = new FormData();
  form.append('purpose', 'assistants');
  form.append('file', new Blob([new TextEncoder().encode(input.text), '\n', new Uint8Array([1, 2, 255])], { type: 'text/plain' }), 'näme "q".txt');
  form.set('file2', new File(['x'], 'x.json', { type: 'application/json', lastModified: 5 }));
  const r = await fetch('https://files.example/upload', { method: 'POST', body: form });
  return [r.status, [...form.keys()], form.get('file').name, form.get('file').size, await form.get('file2').text()];
};
//# link_pages
export default async function () {
  let url = 'https://api.github.com/items?page=1';
  const all = [];
  while (url) {
    const r = await fetch(url, { headers: { Accept: 'application/vnd.github+json' } });
    all.push(...await r.json());
    const links = Object.fromEntries((r.headers.get('link') ?? '').split(', ').filter(Boolean).map((l) => { const { groups } = l.match(/<(?<url>[^>]+)>; rel="(?<rel>\w+)"/); return [groups.rel, groups.url]; }));
    url = links.next;
  }
  return all;
}
//# retry
const sleep = (ms) => new Promise((r) => setTimeout(r, ms));
async function withRetry(fn, { tries = 4, base = 5 } = {}) {
  let last;
  for (let i = 0; i < tries; i++) {
    try { return await fn(i); } catch (e) { last = e; await sleep(base * 2 ** i + Math.random()); }
  }
  throw new Error(`gave up after ${tries}`, { cause: last });
}
export default async () => {
  let n = 0;
  const got = await withRetry(async () => {
    n++;
    const r = await fetch('https://flaky.example/', { signal: AbortSignal.timeout(2000) });
    if (r.status >= 500) { await r.body?.cancel(); throw new Error(`HTTP ${r.status}`); }
    return r.json();
  });
  return { n, got };
};
//# settled
export default async () => {
  const urls = Array.from({ length: 20 }, (_, i) => `https://many.example/${i}`);
  const results = await Promise.allSettled(urls.map(async (u) => { const r = await fetch(u); if (!r.ok) throw new Error(`${r.status}`); return r.json(); }));
  const { fulfilled = [], rejected = [] } = Object.groupBy(results, (r) => r.status);
  const again = urls.map((u) => fetch(u).then((r) => r.json()));
  const raced = (await Promise.race(again)).i >= 0;
  await Promise.allSettled(again);
  return { ok: fulfilled.map((r) => r.value.i), bad: rejected.map((r) => r.reason.message), raced, any: await Promise.any([Promise.reject(new Error('x')), 5]) };
};
//# pipeline
export default async () => {
  const r = await fetch('https://files.example/lines.ndjson');
  const lines = r.body.pipeThrough(new TextDecoderStream()).pipeThrough(new TransformStream({
    start() { this.buf = ''; },
    transform(chunk, c) { this.buf += chunk; const parts = this.buf.split('\n'); this.buf = parts.pop(); for (const p of parts) if (p) c.enqueue(JSON.parse(p)); },
    flush(c) { if (this.buf) c.enqueue(JSON.parse(this.buf)); },
  }));
  const out = [];
  for await (const x of lines) out.push(x);
  const s = ReadableStream.from(['a', 'b']);
  const [a, b] = s.tee();
  out.push(await Array.fromAsync(a), await Array.fromAsync(b));
  const gz = new Response(new ReadableStream({ start(c) { c.enqueue(new TextEncoder().encode('hé')); c.close(); } }));
  out.push(await gz.text());
  return out;
};
//# b64url
const toB64u = (bytes) => btoa(String.fromCharCode(...bytes)).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
const fromB64u = (s) => Uint8Array.from(atob(s.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0));
export default () => {
  const b = new Uint8Array([250, 251, 252, 0, 255, 62, 63]);
  return [toB64u(b), [...fromB64u(toB64u(b))], toB64u(new TextEncoder().encode('žluť 😀')), decodeURIComponent(escape(atob(btoa(unescape(encodeURIComponent('é'))))))];
};
//# regex
export default () => {
  const m = '2024-05-06T07:08'.match(/^(?<y>\d{4})-(?<m>\d\d)-(?<d>\d\d)/);
  const { y, m: mo, d } = m.groups;
  return [y, mo, d, 'a1b22'.replace(/(?<n>\d+)/g, '[$<n>]'), [...'k=v;x=y'.matchAll(/(\w)=(\w)/g)].map(([, k, v]) => k + v), /(?<=\$)\d+/.exec('cost $42')[0], /\p{Lu}/u.test('É'), 'aBc'.replace(/b/i, (c) => c.toUpperCase() + '!'), 'x'.at(-1), /[\p{L}--[a-z]]/v.test('a')];
};
//# classes
class Client {
  #token; static #count = 0; static instances() { return Client.#count; }
  base = 'https://api.github.com'; static { this.ready = true; }
  constructor(token) { this.#token = token; Client.#count++; }
  get #auth() { return { authorization: `Bearer ${this.#token}` }; }
  async get(path) { const r = await fetch(this.base + path, { headers: this.#auth }); return r.json(); }
  has(o) { return #token in o; }
  toJSON() { return { base: this.base }; }
}
export default async (input, env) => {
  const c = new Client(env.GITHUB);
  return [await c.get('/user'), c, c.has(c), c.has({}), Client.instances(), Client.ready];
};
//# generators
function* take(n, it) { for (const x of it) { if (n-- <= 0) return; yield x; } }
function* naturals() { let n = 0; while (true) yield n++; }
async function* pages() { for (const p of [1, 2, 3]) { await null; yield p; } }
export default async () => {
  const a = [...take(3, naturals())];
  const b = []; for await (const p of pages()) b.push(p);
  const c = naturals().filter((n) => n % 2).map((n) => n * n).take(3).toArray();
  const { promise, resolve } = Promise.withResolvers(); resolve(9);
  return [a, b, c, await promise, [3, 1, 2].toSorted(), [1, 2, 3].with(0, 9), [1, 2, 3].findLast((x) => x < 3), new Set([1, 2]).union(new Set([3])).size, Object.fromEntries(new Map([['a', 1]]))];
};
//# errors
class HttpError extends Error {
  constructor(status, message, options) { super(message, options); this.name = 'HttpError'; this.status = status; }
  get retryable() { return this.status >= 500; }
}
class NotFoundError extends HttpError { name = 'NotFoundError'; constructor(m, o) { super(404, m, o); } }
export default () => {
  try {
    try { JSON.parse('{bad'); } catch (cause) { throw new NotFoundError('no', { cause }); }
  } catch (e) {
    return [e.name, e.message, e.status, e.retryable, e instanceof HttpError, e instanceof Error, e.cause.name, String(e), e.constructor.name, Object.prototype.toString.call(e), { ...e }, Object.keys(e)];
  }
};
//# consts
'use strict';
const API = 'https://api.github.com';
const HEADERS = Object.freeze({ accept: 'application/json' });
let counter = 0;
var legacy = [1, 2];
const add = (a, b) => a + b;
export default async function handler(input = {}, ctx) {
  const { n = 3, ...rest } = input ?? {};
  counter += n;
  return { sum: add(n, legacy.length), counter, rest, keys: Object.keys(HEADERS), opt: input?.a?.b ?? 'none', lbl: `${API}`.length };
}
//# aes
export default async (input) => {
  const enc = new TextEncoder(), dec = new TextDecoder();
  const key = await crypto.subtle.generateKey({ name: 'AES-GCM', length: 256 }, true, ['encrypt', 'decrypt']);
  const iv = crypto.getRandomValues(new Uint8Array(12));
  const ct = await crypto.subtle.encrypt({ name: 'AES-GCM', iv }, key, enc.encode('secret'));
  const back = dec.decode(await crypto.subtle.decrypt({ name: 'AES-GCM', iv }, key, ct));
  const jwk = await crypto.subtle.exportKey('jwk', key);
  let bad; try { await crypto.subtle.decrypt({ name: 'AES-GCM', iv: new Uint8Array(12) }, key, ct); } catch (e) { bad = e.name; }
  return [ct.byteLength, back, jwk.alg, jwk.kty, bad, crypto.randomUUID().length];
};
//# url
export default () => {
  const u = new URL('../b?x=1&x=2#h', 'https://user:pw@exämple.com:8443/a/c/');
  u.searchParams.append('q', 'a b+c');
  return [u.href, u.host, u.origin, u.searchParams.getAll('x'), URL.canParse('nope'), URL.parse?.('https://a/b')?.pathname, [...new URLSearchParams('a=1&b=%20')], new URLSearchParams({ a: [1, 2] }).toString(), JSON.stringify({ u }), u.searchParams.size];
};
//# response_ctor
export default async () => {
  const r = new Response(JSON.stringify({ a: 1 }), { status: 201, statusText: 'Made', headers: { 'content-type': 'application/json' } });
  const c = r.clone();
  const e = []; try { new Response('', { status: 99 }); } catch (x) { e.push(x.name); } try { await r.json(); await r.json(); } catch (x) { e.push(x.name); }
  return [r.status, r.statusText, r.ok, (await c.json()).a, r.bodyUsed, e, Response.error().type, Response.redirect('https://a/b', 302).headers.get('location'), await new Response(new Blob(['ab'])).text(), (await new Response('abc').bytes?.())?.length, new Response(null).body, (await new Response(new URLSearchParams('a=1')).formData()).get('a')];
};
//# tagged
const sql = (s, ...v) => ({ text: s.raw.join('?'), values: v });
const pipe = (...f) => (x) => f.reduce((a, g) => g(a), x);
label: for (const i of [1]) { continue label; }
export default (i) => [sql`select ${1} from ${'t'}`, pipe((x) => x + 1, (x) => x * 2)(3), ((a, b = a) => a + b)(2), 0b11 + 0o7 + 1_000, 2n ** 64n > 1, 10n.toString(), typeof globalThis, new Proxy({}, { get: (_, k) => k }).hi, Reflect.ownKeys({ a: 1, [Symbol.iterator]: 2 }).length, [..."a😀"].length, "abc".isWellFormed(), Array.isArray([]), Number.parseFloat('1.5x'), Math.hypot(3, 4), new Date('2024-02-30').getTime(), JSON.stringify({ b: 1, a: [1] }, null, 2), [1, [2, [3]]].flat(Infinity), Object.entries({ a: 1 }), 'x'.padStart(3, '-'), new Error('e', { cause: 1 }).cause];
//# weakmap
const cache = new WeakMap();
const memo = new Map();
export default async (i) => {
  const k = {}; cache.set(k, 1);
  memo.set('n', (memo.get('n') ?? 0) + 1);
  const dv = new DataView(new ArrayBuffer(8)); dv.setFloat32(0, 1.5); dv.setBigUint64(0, 5n);
  return [cache.get(k), memo.get('n'), dv.getUint8(7), new Float64Array([1, 2]).map((x) => x * 2)[1], new Uint8Array(4).fill(7).subarray(1).length, Array.from({ length: 2 }, (_, i) => i), new TextEncoder().encodeInto('é', new Uint8Array(4)), new TextDecoder('utf-16le').decode(new Uint8Array([65, 0])), new TextDecoder('latin1').encoding];
};
//# getset
const o = { get x() { return 1; }, set x(v) {}, ['a' + 1]: 2, __proto__: { inherited: 3 } };
export default () => { const p = { ...o }; p.toString = () => 'mine'; p.constructor = 5; class A extends Array { sum() { return this.reduce((a, b) => a + b, 0); } } const a = A.from([1, 2]); const M = class extends Map { get(k) { return super.get(k) ?? 0; } }; const m = new M(); m.set('a', 1); return [o.x, p.a1, o.inherited, `${p}`, a.sum(), a.map((x) => x * 2).sum(), m.get('b')]; };
