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
  const { freeze, create, defineProperty, getPrototypeOf, getOwnPropertyDescriptor } = O;
  const { ownKeys } = Reflect;
  const evaluate = eval; // indirect: in the global scope, out of any body's reach
  const now = Date.now;
  const limits = 'LIMITS';
  const sources = 'APIS';
  const READS = 20000; // of streamed answers, one at a time for each; they are apart from the other operations

  // Progress without the host (waitAsync, finalizers) would be missed by a drain; WebAssembly brings SharedArrayBuffer back.
  for (const name of ['WebAssembly', 'SharedArrayBuffer', 'Atomics', 'WeakRef', 'FinalizationRegistry', 'console']) delete G[name];

  let outbox = '';
  let finished = '';
  let body = null;
  let wanted = [];
  let file = ''; // the author's, as stacks name it
  let lead = 0; // how much of the first line of the body's script stands before it
  const live = create(null); // its state, by call
  const loaded = create(null); // what a file of apis/ made, by name
  let running = null; // whose step this is: V8 runs all of a step's microtasks before the host's next script

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

  // `Error` means a DOMException, as the platform throws for everything that is not the caller's type or range.
  const fault = (name, message, Base = TypeError) => {
    if (Base === Error) return new (need('dom').DOMException)(message, name);
    const error = new Base(message);
    if (name !== error.name) defineProperty(error, 'name', { value: name, writable: true, enumerable: false, configurable: true });
    return error;
  };

  // An operation of the host's. Resolves with its answer, or throws what the host refused it with.
  const ask = async (call, kind, fields) => judge(await new P((resolve) => post(call, kind, fields, resolve)));

  const DOM = /^(?:Abort|Timeout|NotSupported|Data|Operation|InvalidAccess|InvalidState|QuotaExceeded)Error$/;

  const judge = (answer) => {
    if (answer.e === undefined) return answer;
    const name = answer.n ?? 'TypeError';
    throw fault(name, answer.e, DOM.test(name) ? Error : TypeError);
  };

  const post = (call, kind, fields, resolve) => {
    const operation = ++call.operations;
    if (kind === 'read') {
      if (++call.reads > READS) throw fault('LimitError', `too many pieces of answers: at most ${READS} a run`, RangeError);
    } else if (operation - call.reads > limits.operations) {
      throw fault('LimitError', `too many host operations: at most ${limits.operations} a run`, RangeError);
    }
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
    stop(call, operation);
  };

  // The host may end what it still does for an operation, answered or not.
  const stop = (call, operation) => emit(call, stringify({ k: 'cancel', i: operation }));

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

  // Stacks show the author's own frames, at the places in the author's file; V8 asks for a stack's text when it is first read.
  const heading = Function.prototype.call.bind(Error.prototype.toString);

  const framed = (frame, among) => {
    const line = `${frame}`;
    if (/rootlink:(?!body:)|^<anonymous>:1:\d+$/.test(line)) return among; // the prelude's, the host's
    let around = false;
    // Of an eval of the body's own, V8 names the place it is at without the script's name.
    const shown = line.replace(/(?:rootlink:body|(?<=eval at [^()]* \()<anonymous>):(\d+):(\d+)/g, (_, row, column) => {
      if (row !== '1') return `${file}:${row}:${column}`;
      around ||= +column <= lead;
      return `${file}:1:${column > lead ? column - lead : 1}`;
    });
    return around && among ? among : `${among}\n    at ${shown.replace('$default', 'default')}`;
  };

  Error.prepareStackTrace = (error, frames) =>
    attempt(() => heading(error), 'Error') + attempt(() => frames.reduce((among, frame) => framed(frame, among), ''), '');

  const stackOf = (error) => text(error.stack).slice(0, 4000);

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

  // `mark` is a member of the event beside the value, where no value can put one.
  const done = (value, mark = '') => {
    let json;
    try {
      json = stringify(value === undefined ? null : value);
    } catch (error) {
      return failure('OutputError', `the result is not JSON: ${attempt(() => text(error.message).split('\n')[0], '?')}`);
    }
    if (json === undefined) return failure('OutputError', `the result is not JSON: it is a ${typeof value}`);
    if (json.length > limits.output) return failure('OutputError', `the result is larger than ${limits.output} characters`);
    if (tooDeep(json)) return failure('OutputError', `the result is nested deeper than ${limits.depth} levels`);
    return `{"k":"done","v":${json}${mark}}`;
  };

  // ── what a body is given ───────────────────────────────────────────────────────────────────────────────────────────────

  // In brackets V8 compiles a function at once; any other it reads twice.
  const bracketed = (file) => `(${sources[file].replace(/;\s*(?:\/\/#.*)?$/, '')})\n//# sourceURL=rootlink:${file}`;
  const need = (file) => (loaded[file] ??= harden(evaluate(bracketed(file))(bridge)));

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

  const sleep = (call, delay, ring) => post(call, 'timer', { ms: Math.min(Math.max(+delay || 0, 0), 2 ** 31) }, ring);

  const timer = (call) => (callback, delay = 0, ...values) => {
    if (typeof callback !== 'function') throw new TypeError('setTimeout needs a function');
    const id = sleep(call, delay, () => {
      delete call.timers[id];
      guarded(call, callback, values);
    });
    return (call.timers[id] = id);
  };

  const clear = (call) => (id) => {
    const operation = attempt(() => call.timers[id], undefined);
    if (operation === undefined) return;
    delete call.timers[id];
    cancel(call, operation);
  };

  const microtask = (call) => (callback) => {
    if (typeof callback !== 'function') throw new TypeError('queueMicrotask needs a function');
    P.resolve().then(() => guarded(call, callback, []));
  };

  const shared = (file, name) => () => need(file)[name];
  const own = (file, name) => (call) => (call.own[file] ??= need(file)(call))[name];
  const made = (file, name) => (call) => need(file)[name](call);

  const offers = {
    fetch: made('fetch', 'fetch'),
    Request: shared('http', 'Request'),
    Response: shared('http', 'Response'),
    Headers: shared('http', 'Headers'),
    ReadableStream: shared('streams', 'ReadableStream'),
    WritableStream: shared('streams', 'WritableStream'),
    TransformStream: shared('streams', 'TransformStream'),
    TextDecoderStream: shared('streams', 'TextDecoderStream'),
    TextEncoderStream: shared('streams', 'TextEncoderStream'),
    FormData: shared('forms', 'FormData'),
    Blob: shared('forms', 'Blob'),
    File: shared('forms', 'File'),
    DOMException: shared('dom', 'DOMException'),
    console: logger,
    setTimeout: timer,
    clearTimeout: clear,
    setInterval: made('timers', 'setInterval'),
    clearInterval: clear,
    performance: made('timers', 'performance'),
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
    AbortController: shared('abort', 'AbortController'),
    AbortSignal: shared('abort', 'AbortSignal'),
    URL: shared('url', 'URL'),
    URLSearchParams: shared('url', 'URLSearchParams'),
    TextEncoder: shared('encoding', 'TextEncoder'),
    TextDecoder: shared('encoding', 'TextDecoder'),
    atob: shared('encoding', 'atob'),
    btoa: shared('encoding', 'btoa'),
    structuredClone: shared('clone', 'structuredClone'),
  };

  const offer = (call, name) => (call.offered[name] ??= offers[name](call));

  // `peek`: what a file of apis/ made, if a body has mentioned it; no value can be of its classes otherwise.
  const bridge = {
    ask, judge, post, cancel, stop, sleep, guarded, fault, need, offer, text,
    peek: (file) => loaded[file], current: () => running, harden: (value) => harden(value),
  };

  // ── calls ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

  const open = (id, seed) =>
    (running = live[id] = {
      id, seed, closed: false, operations: 0, reads: 0, said: 0, lines: 0, logged: 0,
      waits: create(null), timers: create(null), own: create(null), offered: create(null),
    });

  const toolsOf = own('tools', 'tools'); // evaluated when a body first asks for it

  const instantiate = (call) => {
    const callable = body(...wanted.map((name) => offer(call, name)));
    if (typeof callable === 'function') return callable;
    throw new TypeError(`the body must evaluate to a function such as async (input, ctx) => { }, not to ${callable === null ? 'null' : typeof callable}`);
  };

  const execute = async (call, input, context) => {
    try {
      const callable = instantiate(call);
      const value = await callable(input, context);
      finish(call, loaded.http?.isResponse(value) ? done(await loaded.http.plain(value, limits.output), ',"r":1') : done(value));
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
      for (const key of ownKeys(item)) {
        const { value, get, set } = getOwnPropertyDescriptor(item, key);
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
      getOwnPropertyDescriptor(new Error(), 'stack'), behind,
    ];
  };

  // A frozen prototype would forbid `error.name = …` and the like on objects that inherit from it. Accessors give that back.
  // Not for hot builtins: an accessor on Array.prototype.constructor makes map and filter five times slower.
  const behind = []; // what those accessors give, which no property leads to any more
  const assignable = (prototype, keys) => {
    for (const key of keys) {
      const descriptor = getOwnPropertyDescriptor(prototype, key);
      if (!descriptor?.configurable || !('value' in descriptor)) continue;
      const { value, enumerable } = descriptor;
      behind.push(value);
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
    bind: (names, make, name, around) => {
      wanted = names;
      body = make;
      file = name;
      lead = around;
    },
    run: (id, payload) => {
      const { input, env, ctx, seed } = parse(payload);
      const call = open(id, seed);
      execute(call, input, defineProperty({ ...env, ...ctx, env }, 'tools', { get: () => toolsOf(call), configurable: true }));
    },
    // What the body evaluates to, without calling it.
    probe: (id) => {
      const call = open(id, '');
      try {
        finish(call, done(typeof body(...wanted.map((name) => offer(call, name)))));
      } catch (error) {
        finish(call, failed(error));
      }
    },
    deliver: (id, operation, answer) => {
      const call = live[id];
      const resolve = call?.waits[operation];
      if (resolve === undefined) return;
      delete call.waits[operation];
      running = call;
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
