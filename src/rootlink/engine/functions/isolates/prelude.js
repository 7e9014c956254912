// The bridge between a body and the host. No native function is in here: what a body asks for is appended to an outbox, which
// the host empties with `drain`; what comes back is handed in with `deliver`. Both are scripts the host posts (worker.py).
//
// worker.py fills in the bridge's name, the limits and the sources of apis/. Rules:
//   1. After `lock()` every intrinsic and the global object are frozen, so calls of one function share code and no state.
//   2. What belongs to one call is made for that call (`offers`), and only what the source mentions; the rest lives in apis/
//      and is evaluated at first use.
//   3. Host operations, logs and results are capped here already, where they arise: a flood must not reach the engine.
const KEY = (() => {
  'use strict';
  const G = globalThis;
  const O = Object;
  const P = Promise;
  const { parse, stringify } = JSON;
  const { freeze, create, defineProperty, getPrototypeOf, getOwnPropertyDescriptor, getOwnPropertyDescriptors } = O;
  const { ownKeys } = Reflect;
  const evaluate = eval; // indirect: in the global scope, out of any body's reach
  const now = Date.now;
  const limits = 'LIMITS';
  const sources = 'APIS';

  // Progress without the host (waitAsync, finalizers) would be missed by a drain; WebAssembly brings SharedArrayBuffer back.
  for (const name of ['WebAssembly', 'SharedArrayBuffer', 'Atomics', 'WeakRef', 'FinalizationRegistry', 'console']) delete G[name];

  let outbox = '';
  let finished = '';
  let body = null;
  let wanted = [];
  const live = create(null); // its state, by call
  const loaded = create(null); // what a file of apis/ made, by name

  // ── saying things to the host ──────────────────────────────────────────────────────────────────────────────────────────

  const emit = (call, event) => {
    if (!call.closed) outbox += call.id + ' ' + event + '\n';
  };

  const finish = (call, event) => {
    if (call.closed) return;
    if (event.length > limits.output) event = failure('OutputError', `the result is larger than ${limits.output} characters`);
    emit(call, event);
    close(call);
  };

  const close = (call) => {
    call.closed = true;
    delete live[call.id];
    finished += (finished && ',') + call.id;
  };

  const failure = (n, m, s = '') => stringify({ k: 'failed', n, m, s });

  const fault = (name, message, Base = TypeError) => {
    const error = new Base(message);
    if (name !== error.name) defineProperty(error, 'name', { value: name, writable: true, enumerable: false, configurable: true });
    return error;
  };

  // An operation of the host's. Resolves with its answer, or throws what the host refused it with.
  const ask = async (call, kind, fields) => judge(await new P((resolve) => post(call, kind, fields, resolve)));

  const judge = (answer) => {
    if (answer.e === undefined) return answer;
    throw fault(answer.n ?? 'TypeError', answer.e);
  };

  const post = (call, kind, fields, resolve) => {
    const operation = ++call.operations;
    if (operation > limits.operations) throw fault('LimitError', `too many host operations: at most ${limits.operations} a run`, RangeError);
    const event = stringify({ k: kind, i: operation, ...fields });
    call.said += event.length;
    if (call.said > limits.operationChars) throw fault('LimitError', 'the run sends too much: request bodies and data together are over the limit', RangeError);
    call.waits[operation] = resolve;
    emit(call, event);
    return operation;
  };

  const cancel = (call, operation) => {
    if (call.waits[operation] === undefined) return;
    delete call.waits[operation];
    emit(call, stringify({ k: 'cancel', i: operation }));
  };

  // ── showing values and errors ──────────────────────────────────────────────────────────────────────────────────────────

  const text = (value) => `${value}`.toWellFormed();

  const attempt = (read, otherwise) => {
    try {
      return read();
    } catch {
      return otherwise;
    }
  };

  const isError = (value) => value instanceof Error;

  const show = (value) => {
    if (typeof value === 'string') return value.toWellFormed();
    if (isError(value)) return attempt(() => stackOf(value) || text(value), 'Error');
    if (typeof value === 'function') return attempt(() => `[Function: ${text(value.name) || 'anonymous'}]`, '[Function]');
    if (typeof value === 'bigint') return `${value}n`;
    if (typeof value === 'symbol') return text(value.description ?? 'Symbol()');
    if (value instanceof Map) return attempt(() => `Map ${stringify([...value])}`, 'Map');
    if (value instanceof Set) return attempt(() => `Set ${stringify([...value])}`, 'Set');
    return attempt(() => stringify(value) ?? text(value), attempt(() => text(value), '?'));
  };

  // Frames of the author's own source; the prelude's and the host's scripts are nobody's business.
  const stackOf = (error) => {
    const lines = text(error.stack).slice(0, 8000).split('\n');
    return lines.filter((line) => !/rootlink:|^\s+at <anonymous>:1:\d+$/.test(line)).join('\n').slice(0, 4000);
  };

  const failed = (error) => {
    const known = isError(error);
    const name = attempt(() => (known ? text(error.name) : 'Error'), 'Error');
    const message = attempt(() => (known ? text(error.message) : show(error)), '?');
    const stack = attempt(() => (known ? stackOf(error) : ''), '');
    return failure(name.slice(0, 200), message.slice(0, 4000), stack);
  };

  // ── results ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  const tooDeep = (json) => {
    let depth = 0;
    let quoted = false;
    for (let i = 0; i < json.length; i++) {
      const c = json.charCodeAt(i);
      if (c === 34) quoted = !quoted;
      else if (quoted) i += c === 92 ? 1 : 0;
      else if (c === 91 || c === 123) {
        if (++depth > limits.depth) return true;
      } else if (c === 93 || c === 125) depth--;
    }
    return false;
  };

  const done = (value) => {
    let json;
    try {
      json = stringify(value === undefined ? null : value);
    } catch (error) {
      return failure('OutputError', `the result is not JSON: ${attempt(() => text(error.message).split('\n')[0], '?')}`);
    }
    if (json === undefined) return failure('OutputError', `the result is not JSON: it is a ${typeof value}`);
    if (json.length > limits.output) return failure('OutputError', `the result is larger than ${limits.output} characters`);
    if (tooDeep(json)) return failure('OutputError', `the result is nested deeper than ${limits.depth} levels`);
    return `{"k":"done","v":${json}}`;
  };

  // ── what a body is given ───────────────────────────────────────────────────────────────────────────────────────────────

  const need = (file) => (loaded[file] ??= harden(evaluate(sources[file])(bridge)));

  const logger = (call) => {
    const say = (level) => (...values) => {
      const words = values.map(show).join(' ');
      call.logged += words.length;
      if (call.lines > limits.logLines || call.logged > limits.logChars + words.length) return;
      const full = ++call.lines > limits.logLines || call.logged > limits.logChars;
      emit(call, stringify({ k: 'log', l: full ? 'warn' : level, t: full ? 'log limit reached: what follows is dropped' : words, at: now() }));
      if (full) call.lines = limits.logLines + 1;
    };
    return { log: say('log'), info: say('info'), warn: say('warn'), error: say('error'), debug: say('debug'), trace: say('debug') };
  };

  const guarded = (call, callback, values) => {
    try {
      callback(...values);
    } catch (error) {
      finish(call, failed(error));
    }
  };

  const timer = (call) => (callback, delay = 0, ...values) => {
    if (typeof callback !== 'function') throw new TypeError('setTimeout needs a function');
    return post(call, 'timer', { ms: Math.min(Math.max(+delay || 0, 0), 2 ** 31) }, () => guarded(call, callback, values));
  };

  const microtask = (call) => (callback) => {
    if (typeof callback !== 'function') throw new TypeError('queueMicrotask needs a function');
    P.resolve().then(() => guarded(call, callback, []));
  };

  const shared = (file, name) => () => need(file)[name];
  const own = (file, name) => (call) => (call.own[file] ??= need(file)(call))[name];

  const offers = {
    fetch: own('fetch', 'fetch'),
    console: logger,
    setTimeout: timer,
    clearTimeout: (call) => (operation) => cancel(call, operation),
    queueMicrotask: microtask,
    globalThis: (call) => {
      const scope = create(G);
      for (const name of ownKeys(offers)) {
        const get = name === 'globalThis' ? () => scope : () => offer(call, name);
        defineProperty(scope, name, { get, set: (value) => defineProperty(scope, name, { value, writable: true, configurable: true }), configurable: true });
      }
      return scope;
    },
    crypto: own('crypto', 'crypto'),
    AbortController: own('abort', 'AbortController'),
    AbortSignal: own('abort', 'AbortSignal'),
    URL: shared('url', 'URL'),
    URLSearchParams: shared('url', 'URLSearchParams'),
    TextEncoder: shared('encoding', 'TextEncoder'),
    TextDecoder: shared('encoding', 'TextDecoder'),
    atob: shared('encoding', 'atob'),
    btoa: shared('encoding', 'btoa'),
    structuredClone: shared('clone', 'structuredClone'),
  };

  const offer = (call, name) => (call.offered[name] ??= offers[name](call));

  const bridge = { ask, judge, post, cancel, fault, need, offer, text, harden: (value) => harden(value) };

  // ── calls ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

  const open = (id, seed) =>
    (live[id] = { id, seed, closed: false, operations: 0, said: 0, lines: 0, logged: 0, waits: create(null), own: create(null), offered: create(null) });

  const instantiate = (call) => {
    const callable = body(...wanted.map((name) => offer(call, name)));
    if (typeof callable === 'function') return callable;
    throw new TypeError(`the body must evaluate to a function such as async (input, ctx) => { }, not to ${callable === null ? 'null' : typeof callable}`);
  };

  const execute = async (call, input, context) => {
    try {
      const callable = instantiate(call);
      finish(call, done(await callable(input, context)));
    } catch (error) {
      finish(call, failed(error));
    }
  };

  // ── freezing ───────────────────────────────────────────────────────────────────────────────────────────────────────────

  let frozen = null; // what has been frozen; null until lock()

  const harden = (value) => {
    if (frozen === null) return value;
    const fresh = [];
    const queue = [value];
    while (queue.length) {
      const item = queue.pop();
      if (item === null || (typeof item !== 'object' && typeof item !== 'function') || frozen.has(item)) continue;
      frozen.add(item);
      fresh.push(item);
      queue.push(getPrototypeOf(item));
      const descriptors = getOwnPropertyDescriptors(item);
      for (const key of ownKeys(descriptors)) {
        const { value, get, set } = descriptors[key];
        queue.push(value, get, set);
      }
    }
    for (const item of fresh) freeze(item);
    return value;
  };

  // Intrinsics that no global leads to.
  const hidden = () => {
    const segments = new Intl.Segmenter().segment('a');
    return [
      function* () {}, async () => {}, async function* () {}, [].values(), ''[Symbol.iterator](), new Map().keys(), new Set().keys(),
      'x'.matchAll(/x/g), getPrototypeOf(Int8Array), [].values().map((x) => x), Iterator.from({ next() {} }), segments, segments[Symbol.iterator](),
    ];
  };

  // A frozen prototype would forbid `error.name = …` and the like on objects that inherit from it. Accessors give that back.
  // Not for hot builtins: an accessor on Array.prototype.constructor makes map and filter five times slower.
  const assignable = (prototype, keys) => {
    for (const key of keys) {
      const descriptor = getOwnPropertyDescriptor(prototype, key);
      if (!descriptor?.configurable || !('value' in descriptor)) continue;
      const { value, enumerable } = descriptor;
      const get = () => value;
      const set = function (next) {
        if (this === prototype) throw new TypeError(`${key} of a shared prototype can't be assigned`);
        defineProperty(this, key, { value: next, writable: true, enumerable: true, configurable: true });
      };
      defineProperty(prototype, key, { get, set, enumerable, configurable: false });
    }
  };

  const lock = () => {
    for (const key of ['input', '$_', 'lastMatch', '$&', 'lastParen', '$+', 'leftContext', '$`', 'rightContext', "$'"]) delete RegExp[key];
    for (let i = 1; i < 10; i++) delete RegExp['$' + i]; // they remember the last match, across calls
    assignable(O.prototype, ['constructor', 'toString', 'valueOf', 'toLocaleString']);
    assignable(Function.prototype, ['name', 'toString']);
    for (const Base of [Error, TypeError, RangeError, SyntaxError, ReferenceError, EvalError, URIError, AggregateError]) {
      assignable(Base.prototype, ['constructor', 'name', 'message', 'toString']);
    }
    frozen = new Set();
    harden(G);
    hidden().forEach(harden);
  };

  return freeze({
    bind: (names, make) => {
      wanted = names;
      body = make;
    },
    run: (id, payload) => {
      const { input, env, ctx, seed } = parse(payload);
      execute(open(id, seed), input, { ...env, ...ctx, env });
    },
    // What the body evaluates to, without calling it.
    probe: (id) => {
      const call = open(id, '');
      finish(call, attempt(() => done(typeof body(...wanted.map((name) => offer(call, name)))), done('thrown')));
    },
    deliver: (id, operation, answer) => {
      const call = live[id];
      const resolve = call?.waits[operation];
      if (resolve === undefined) return;
      delete call.waits[operation];
      resolve(parse(answer));
    },
    drop: (id) => {
      const call = live[id];
      if (call !== undefined) close(call);
      else finished += (finished && ',') + id;
    },
    // A call of nothing: compiles what the first real call would have to.
    warm: () => {
      body = () => () => 0;
      execute(open(0, ''), null, {});
    },
    lock,
    drain: () => {
      const said = finished + '\n' + outbox;
      outbox = finished = '';
      return said;
    },
  });
})();
//# sourceURL=rootlink:prelude
