// Streams: https://streams.spec.whatwg.org, without byte streams: a stream has one kind of reader, and its chunks are what is put in.
//
//     source ─ pull ─► queue (up to its high water mark) ─► reader, for await, tee, pipeTo, or a body's text()
//
// Everything here is shared by the calls of a function and frozen; what a stream knows is in a record of its own (`#s`).
(bridge) => {
  'use strict';
  const deferred = () => {
    const one = Promise.withResolvers();
    one.promise.catch(() => {}); // a rejection nobody waits for is nobody's business
    return one;
  };
  const settled = (act) => new Promise((resolve) => resolve(act()));
  const nothing = () => {};
  const one = () => 1;

  const method = (object, name) => {
    const found = object[name];
    if (found === undefined || found === null) return undefined;
    if (typeof found !== 'function') throw new TypeError(`${name} must be a function`);
    return (...values) => Reflect.apply(found, object, values);
  };

  const strategyOf = (strategy, mark) => {
    const highWaterMark = strategy?.highWaterMark === undefined ? mark : Number(strategy.highWaterMark);
    if (!(highWaterMark >= 0)) throw new RangeError('highWaterMark must be a number, and not below 0');
    return { highWaterMark, sizeOf: method(strategy ?? {}, 'size') ?? one };
  };

  // ── the readable side ──────────────────────────────────────────────────────────────────────────────────────────────────

  const readable = (pull, cancel, highWaterMark, sizeOf) => ({
    state: 'readable', error: undefined, reader: null, disturbed: false, closing: false, started: false, pulling: false, again: false,
    queue: [], size: 0, reads: [], pull, cancel, highWaterMark, sizeOf,
  });

  const open = (s) => s.state === 'readable' && !s.closing;
  const wanted = (s) => (s.state === 'errored' ? null : s.state === 'closed' ? 0 : s.highWaterMark - s.size);

  const feed = (s) => {
    if (!open(s) || !s.started || (s.reads.length === 0 && wanted(s) <= 0)) return;
    if (s.pulling) {
      s.again = true;
      return;
    }
    s.pulling = true;
    settled(s.pull).then(
      () => {
        s.pulling = false;
        if (!s.again) return;
        s.again = false;
        feed(s);
      },
      (error) => fail(s, error),
    );
  };

  const start = (s, act, failed = (error) => fail(s, error)) => {
    const begun = act();
    Promise.resolve(begun).then(() => {
      s.started = true;
      feed(s);
    }, failed);
  };

  const put = (s, chunk) => {
    if (!open(s)) throw new TypeError('Invalid state: the stream takes no more chunks');
    if (s.reads.length > 0) s.reads.shift().resolve({ value: chunk, done: false });
    else {
      let size;
      try {
        size = Number(s.sizeOf(chunk));
        if (!(size >= 0 && size < Infinity)) throw new RangeError('the size of a chunk must be a finite number, and not below 0');
      } catch (error) {
        fail(s, error);
        throw error;
      }
      s.queue.push([chunk, size]);
      s.size += size;
    }
    feed(s);
  };

  const finish = (s) => {
    s.state = 'closed';
    s.pull = s.cancel = nothing;
    for (const read of s.reads.splice(0)) read.resolve({ value: undefined, done: true });
    s.reader?.resolve();
  };

  const end = (s) => {
    if (!open(s)) throw new TypeError('Invalid state: the stream is closed already');
    s.closing = true;
    if (s.queue.length === 0) finish(s);
  };

  const fail = (s, error) => {
    if (s.state !== 'readable') return;
    s.state = 'errored';
    s.error = error;
    s.queue = [];
    s.size = 0;
    s.pull = s.cancel = nothing;
    for (const read of s.reads.splice(0)) read.reject(error);
    s.reader?.reject(error);
  };

  const take = (s) => {
    s.disturbed = true;
    if (s.state === 'closed') return Promise.resolve({ value: undefined, done: true });
    if (s.state === 'errored') return Promise.reject(s.error);
    if (s.queue.length > 0) {
      const [value, size] = s.queue.shift();
      s.size = Math.max(s.size - size, 0);
      if (s.closing && s.queue.length === 0) finish(s);
      else feed(s);
      return Promise.resolve({ value, done: false });
    }
    const read = Promise.withResolvers();
    s.reads.push(read);
    feed(s);
    return read.promise;
  };

  const drop = (s, reason) => {
    s.disturbed = true;
    if (s.state === 'closed') return Promise.resolve();
    if (s.state === 'errored') return Promise.reject(s.error);
    const { cancel } = s;
    s.queue = [];
    s.size = 0;
    finish(s);
    return settled(() => cancel(reason)).then(nothing);
  };

  class ReadableStreamDefaultController {
    #s;
    constructor(s) {
      this.#s = internal(s);
    }
    get desiredSize() {
      return wanted(this.#s);
    }
    enqueue(chunk) {
      put(this.#s, chunk);
    }
    close() {
      end(this.#s);
    }
    error(reason) {
      fail(this.#s, reason);
    }
  }

  class ReadableStreamDefaultReader {
    #s;
    #closed;

    constructor(stream) {
      const s = recordOf(stream);
      if (s.reader !== null) throw new TypeError('Invalid state: the stream is locked');
      this.#s = s;
      this.#closed = s.reader = deferred();
      if (s.state === 'closed') this.#closed.resolve();
      if (s.state === 'errored') this.#closed.reject(s.error);
    }
    get closed() {
      return this.#closed.promise;
    }
    read() {
      return this.#s === null ? Promise.reject(released()) : take(this.#s);
    }
    cancel(reason) {
      return this.#s === null ? Promise.reject(released()) : drop(this.#s, reason);
    }
    releaseLock() {
      const s = this.#s;
      if (s === null) return;
      this.#s = s.reader = null;
      if (s.state === 'readable') this.#closed.reject(released());
      else {
        this.#closed = deferred();
        this.#closed.reject(released());
      }
      for (const read of s.reads.splice(0)) read.reject(released());
    }
  }
  const released = () => new TypeError('Invalid state: the reader or writer was released');

  const each = async function* (reader, preventCancel) {
    let over = false;
    try {
      for (;;) {
        const { value, done } = await reader.read().catch((error) => {
          over = true;
          throw error;
        });
        if (done) {
          over = true;
          return;
        }
        yield value;
      }
    } finally {
      const left = over || preventCancel ? undefined : reader.cancel();
      reader.releaseLock();
      await left;
    }
  };

  // Records of streams made here, told apart from what a body passes to a constructor.
  const internals = new WeakSet();
  const mark = (s) => {
    internals.add(s);
    return s;
  };
  const internal = (s) => {
    if (typeof s !== 'object' || s === null || !internals.has(s)) throw new TypeError('Illegal constructor');
    return s;
  };

  let recordOf; // (stream): its record, or a TypeError
  let isStream;

  class ReadableStream {
    #s;

    constructor(source = {}, strategy = {}) {
      if (typeof source === 'object' && source !== null && internals.has(source)) {
        this.#s = source;
        return;
      }
      if (source === null || (typeof source !== 'object' && typeof source !== 'function')) throw new TypeError('the source of a ReadableStream must be an object');
      if (source.type !== undefined) throw new TypeError("ReadableStream: byte streams are not supported here; leave `type` out and put Uint8Array chunks in");
      const { highWaterMark, sizeOf } = strategyOf(strategy, 1);
      const [begin, pull, cancel] = [method(source, 'start'), method(source, 'pull'), method(source, 'cancel')];
      const s = (this.#s = mark(readable(nothing, cancel ?? nothing, highWaterMark, sizeOf)));
      const controller = new ReadableStreamDefaultController(s);
      if (pull !== undefined) s.pull = () => pull(controller);
      start(s, () => begin?.(controller));
    }
    static {
      isStream = (value) => typeof value === 'object' && value !== null && #s in value;
      recordOf = (stream) => {
        if (!isStream(stream)) throw new TypeError('this is not a ReadableStream');
        return stream.#s;
      };
    }
    static from(iterable) {
      if (iterable === null || iterable === undefined) throw new TypeError('ReadableStream.from needs something iterable');
      const make = iterable[Symbol.asyncIterator] ?? iterable[Symbol.iterator];
      if (typeof make !== 'function') throw new TypeError('ReadableStream.from needs something iterable');
      const iterator = Reflect.apply(make, iterable, []);
      const s = made(
        async () => {
          const { value, done } = await iterator.next();
          if (done) end(s);
          else put(s, await value);
        },
        async (reason) => {
          await iterator.return?.(reason);
        },
      );
      return new ReadableStream(s);
    }
    get locked() {
      return this.#s.reader !== null;
    }
    cancel(reason) {
      if (this.locked) return Promise.reject(new TypeError('Invalid state: the stream is locked'));
      return drop(this.#s, reason);
    }
    getReader(options) {
      if (options?.mode !== undefined) throw new TypeError(`getReader: the mode ${bridge.text(options.mode).slice(0, 40)} is not supported here; leave it out`);
      return new ReadableStreamDefaultReader(this);
    }
    values(options) {
      return each(this.getReader(), Boolean(options?.preventCancel));
    }
    [Symbol.asyncIterator](options) {
      return this.values(options);
    }
    tee() {
      const reader = this.getReader();
      return branches(reader).map((s) => new ReadableStream(s));
    }
    async pipeTo(target, options = {}) {
      if (!isWritable(target)) throw new TypeError('pipeTo needs a WritableStream');
      if (this.locked || target.locked) throw new TypeError('Invalid state: the stream is locked');
      await pipe(this.getReader(), target.getWriter(), options ?? {});
    }
    pipeThrough(pair, options) {
      if (!isStream(pair?.readable) || !isWritable(pair?.writable)) throw new TypeError('pipeThrough needs { readable, writable }');
      if (this.locked || pair.writable.locked) throw new TypeError('Invalid state: the stream is locked');
      this.pipeTo(pair.writable, options).catch(nothing);
      return pair.readable;
    }
    get [Symbol.toStringTag]() {
      return 'ReadableStream';
    }
  }

  // A stream of ours: nothing is pulled before somebody reads, unless `highWaterMark` says so.
  const made = (pull, cancel, highWaterMark = 0) => {
    const s = mark(readable(pull, cancel, highWaterMark, one));
    s.started = true;
    return s;
  };

  const branches = (reader) => {
    let reading = false;
    let again = false;
    const left = [null, null];
    const both = deferred();
    const pull = () => {
      if (reading) {
        again = true;
        return;
      }
      reading = true;
      reader.read().then(
        ({ value, done }) => {
          reading = false;
          for (const s of pair) {
            if (!open(s)) continue;
            if (done) end(s);
            else put(s, value);
          }
          if (done && left.includes(null)) both.resolve();
          if (!done && again) {
            again = false;
            pull();
          }
        },
        (error) => pair.forEach((s) => fail(s, error)),
      );
    };
    const cancel = (i) => (reason) => {
      left[i] = [reason];
      if (!left.includes(null)) both.resolve(reader.cancel([left[0][0], left[1][0]]));
      return both.promise;
    };
    reader.closed.catch((error) => {
      pair.forEach((s) => fail(s, error));
      both.resolve();
    });
    const pair = [made(pull, cancel(0)), made(pull, cancel(1))];
    return pair;
  };

  const pipe = async (reader, writer, { preventClose, preventAbort, preventCancel, signal }) => {
    const { follow, isSignal } = bridge.need('abort');
    if (signal !== undefined && !isSignal(signal)) throw new TypeError('pipeTo: signal must be an AbortSignal');
    const aborted = deferred();
    const stop = signal === undefined ? nothing : follow(signal, (reason) => aborted.reject([reason]));
    if (signal?.aborted) aborted.reject([signal.reason]);
    let from = false; // whether what went wrong is the source's
    const read = () =>
      reader.read().catch((error) => {
        from = true;
        throw error;
      });
    try {
      for (;;) {
        await Promise.race([aborted.promise, writer.ready]);
        const { value, done } = await Promise.race([aborted.promise, read(), writer.closed]);
        if (done) break;
        writer.write(value).catch(nothing);
      }
      if (preventClose) await writer.ready;
      else await writer.close();
    } catch (caught) {
      const error = Array.isArray(caught) && signal?.aborted ? caught[0] : caught;
      const isAbort = error !== caught;
      if ((from || isAbort) && !preventAbort) await writer.abort(error).catch(nothing);
      if ((!from || isAbort) && !preventCancel) await reader.cancel(error).catch(nothing);
      throw error;
    } finally {
      stop();
      reader.releaseLock();
      writer.releaseLock();
    }
  };

  // ── the writable side ──────────────────────────────────────────────────────────────────────────────────────────────────

  const writable = (highWaterMark, sizeOf) => ({
    state: 'writable', error: undefined, writer: null, closing: false, size: 0, highWaterMark, sizeOf,
    write: nothing, close: nothing, abort: nothing, tail: Promise.resolve(), ready: null,
  });

  const room = (w) => (w.state === 'errored' ? null : w.state === 'closed' ? 0 : w.highWaterMark - w.size);

  const spoil = (w, error) => {
    if (w.state !== 'writable') return;
    w.state = 'errored';
    w.error = error;
    w.ready?.reject(error);
    w.writer?.reject(error);
  };

  const press = (w) => {
    if (w.ready === null && room(w) <= 0) w.ready = deferred();
    else if (w.ready !== null && room(w) > 0) {
      w.ready.resolve();
      w.ready = null;
    }
  };

  // Acts go one after the other; none after one that failed.
  const queue = (w, act) => {
    const result = w.tail.then(() => {
      if (w.state === 'errored') throw w.error;
      return act();
    });
    w.tail = result.catch((error) => spoil(w, error));
    return result;
  };

  const write = (w, chunk) => {
    if (w.state === 'errored') return Promise.reject(w.error);
    if (w.state !== 'writable' || w.closing) return Promise.reject(new TypeError('Invalid state: the stream is closing or closed'));
    let size;
    try {
      size = Number(w.sizeOf(chunk));
    } catch (error) {
      spoil(w, error);
      return Promise.reject(error);
    }
    w.size += size;
    press(w);
    return queue(w, () => w.write(chunk)).then(() => {
      w.size -= size;
      if (w.state === 'writable') press(w);
    });
  };

  const shut = (w) => {
    if (w.state === 'errored') return Promise.reject(w.error);
    if (w.closing) return Promise.reject(new TypeError('Invalid state: the stream is closing or closed'));
    w.closing = true;
    return queue(w, () => w.close()).then(() => {
      w.state = 'closed';
      w.ready?.resolve();
      w.writer?.resolve();
    });
  };

  const cut = (w, reason) => {
    if (w.state !== 'writable') return Promise.resolve();
    spoil(w, reason);
    return settled(() => w.abort(reason)).then(nothing);
  };

  let targetOf;
  let isWritable;

  class WritableStreamDefaultController {
    #w;
    constructor(w) {
      this.#w = internal(w);
    }
    error(reason) {
      spoil(this.#w, reason);
    }
  }

  class WritableStreamDefaultWriter {
    #w;
    #closed;

    constructor(stream) {
      const w = targetOf(stream);
      if (w.writer !== null) throw new TypeError('Invalid state: the stream is locked');
      this.#w = w;
      this.#closed = w.writer = deferred();
      if (w.state === 'closed') this.#closed.resolve();
      if (w.state === 'errored') this.#closed.reject(w.error);
    }
    get closed() {
      return this.#closed.promise;
    }
    get ready() {
      const w = this.#w;
      if (w === null) return Promise.reject(released());
      return w.state === 'errored' ? Promise.reject(w.error) : (w.ready?.promise ?? Promise.resolve());
    }
    get desiredSize() {
      if (this.#w === null) throw released();
      return room(this.#w);
    }
    write(chunk) {
      return this.#w === null ? Promise.reject(released()) : write(this.#w, chunk);
    }
    close() {
      return this.#w === null ? Promise.reject(released()) : shut(this.#w);
    }
    abort(reason) {
      return this.#w === null ? Promise.reject(released()) : cut(this.#w, reason);
    }
    releaseLock() {
      const w = this.#w;
      if (w === null) return;
      this.#w = w.writer = null;
      this.#closed.reject(released());
    }
  }

  class WritableStream {
    #w;

    constructor(sink = {}, strategy = {}) {
      if (typeof sink === 'object' && sink !== null && internals.has(sink)) {
        this.#w = sink;
        return;
      }
      if (sink === null || (typeof sink !== 'object' && typeof sink !== 'function')) throw new TypeError('the sink of a WritableStream must be an object');
      if (sink.type !== undefined) throw new RangeError('WritableStream: a sink has no type');
      const { highWaterMark, sizeOf } = strategyOf(strategy, 1);
      const w = (this.#w = mark(writable(highWaterMark, sizeOf)));
      const [begin, put, close, abort] = ['start', 'write', 'close', 'abort'].map((name) => method(sink, name) ?? nothing);
      const controller = new WritableStreamDefaultController(w);
      Object.assign(w, { write: (chunk) => put(chunk, controller), close, abort });
      press(w);
      const begun = begin(controller);
      queue(w, () => begun).catch(nothing);
    }
    static {
      isWritable = (value) => typeof value === 'object' && value !== null && #w in value;
      targetOf = (stream) => {
        if (!isWritable(stream)) throw new TypeError('this is not a WritableStream');
        return stream.#w;
      };
    }
    get locked() {
      return this.#w.writer !== null;
    }
    getWriter() {
      return new WritableStreamDefaultWriter(this);
    }
    close() {
      return this.locked ? Promise.reject(new TypeError('Invalid state: the stream is locked')) : shut(this.#w);
    }
    abort(reason) {
      return this.locked ? Promise.reject(new TypeError('Invalid state: the stream is locked')) : cut(this.#w, reason);
    }
    get [Symbol.toStringTag]() {
      return 'WritableStream';
    }
  }

  // ── both ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

  class TransformStreamDefaultController {
    #pair;
    constructor(pair) {
      this.#pair = internal(pair);
    }
    get desiredSize() {
      return wanted(this.#pair.s);
    }
    enqueue(chunk) {
      put(this.#pair.s, chunk);
    }
    error(reason) {
      fail(this.#pair.s, reason);
      spoil(this.#pair.w, reason);
    }
    terminate() {
      if (open(this.#pair.s)) end(this.#pair.s);
      spoil(this.#pair.w, new TypeError('Invalid state: the transform was terminated'));
    }
  }

  class TransformStream {
    #readable;
    #writable;

    constructor(transformer = {}, inwards = {}, outwards = {}) {
      const input = strategyOf(inwards, 1);
      const output = strategyOf(outwards, 0);
      const [begin, change, flush] = ['start', 'transform', 'flush'].map((name) => method(transformer ?? {}, name));
      let asked = deferred(); // resolved while the readable side wants chunks
      const s = mark(readable(() => asked.resolve(), nothing, output.highWaterMark, output.sizeOf));
      const w = mark(writable(input.highWaterMark, input.sizeOf));
      const controller = new TransformStreamDefaultController(mark({ s, w }));
      s.cancel = (reason) => {
        spoil(w, reason);
        asked.resolve();
      };
      w.write = async (chunk) => {
        await asked.promise;
        if (w.state === 'errored') throw w.error;
        try {
          if (change === undefined) put(s, chunk);
          else await change(chunk, controller);
        } catch (error) {
          fail(s, error);
          throw error;
        }
        if (wanted(s) <= 0 && s.reads.length === 0) asked = deferred();
        feed(s);
      };
      w.close = async () => {
        try {
          await flush?.(controller);
        } catch (error) {
          fail(s, error);
          throw error;
        }
        if (s.state === 'errored') throw s.error;
        if (open(s)) end(s);
      };
      w.abort = (reason) => {
        fail(s, reason);
        asked.resolve();
      };
      press(w);
      start(s, () => begin?.(controller), (error) => controller.error(error));
      this.#readable = new ReadableStream(s);
      this.#writable = new WritableStream(w);
    }
    get readable() {
      return this.#readable;
    }
    get writable() {
      return this.#writable;
    }
  }

  class TextDecoderStream extends TransformStream {
    #decoder;
    constructor(label, options) {
      const decoder = new (bridge.need('encoding').TextDecoder)(label, options);
      const pass = (text, controller) => text === '' || controller.enqueue(text);
      super({
        transform: (chunk, controller) => pass(decoder.decode(chunk, { stream: true }), controller),
        flush: (controller) => pass(decoder.decode(), controller),
      });
      this.#decoder = decoder;
    }
    get encoding() {
      return this.#decoder.encoding;
    }
    get fatal() {
      return this.#decoder.fatal;
    }
    get ignoreBOM() {
      return this.#decoder.ignoreBOM;
    }
  }

  class TextEncoderStream extends TransformStream {
    constructor() {
      const encoder = new (bridge.need('encoding').TextEncoder)();
      let high = ''; // half of a character whose other half comes with the next chunk
      const pass = (text, controller) => text === '' || controller.enqueue(encoder.encode(text));
      super({
        transform: (chunk, controller) => {
          const text = high + chunk;
          high = /[\ud800-\udbff]$/.exec(text)?.[0] ?? '';
          pass(text.slice(0, text.length - high.length), controller);
        },
        flush: (controller) => pass(high, controller),
      });
    }
    get encoding() {
      return 'utf-8';
    }
  }

  // ── for bodies ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  // A stream that gives what `pull()` resolves with: [bytes or null, whether it is over]. `fail(error)` ends it from outside.
  const source = (pull, cancel) => {
    const s = made(async () => {
      const [chunk, over] = await pull();
      if (!open(s)) return;
      if (chunk !== null) put(s, chunk);
      if (over) end(s);
      else if (chunk === null) s.again = true;
    }, cancel);
    return { stream: new ReadableStream(s), fail: (error) => fail(s, error) };
  };

  const ofBytes = (bytes) => {
    const chunk = bytes.length > 0 ? bytes : null;
    return source(() => [chunk, true], nothing).stream;
  };

  // All of a stream's bytes, of which there may be so many.
  const collect = async (stream, limit) => {
    const s = recordOf(stream);
    s.reader = deferred();
    const parts = [];
    let size = 0;
    for (;;) {
      const { value, done } = await take(s);
      if (done) break;
      if (!(value instanceof Uint8Array)) {
        const error = new TypeError('the stream of a body must give Uint8Array chunks');
        drop(s, error).catch(nothing);
        throw error;
      }
      size += value.length;
      if (size > limit) {
        const error = new TypeError(`the body is larger than ${limit} bytes; read it in pieces, from its stream`);
        drop(s, error).catch(nothing);
        throw error;
      }
      parts.push(value);
    }
    if (parts.length === 1) return parts[0];
    const bytes = new Uint8Array(size);
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    return bytes;
  };

  const usable = (stream) => !stream.locked && !recordOf(stream).disturbed;
  const disturbed = (stream) => recordOf(stream).disturbed;
  const abandon = (stream, reason) => drop(recordOf(stream), reason).catch(nothing);

  return {
    ReadableStream, ReadableStreamDefaultReader, ReadableStreamDefaultController, WritableStream, WritableStreamDefaultWriter,
    WritableStreamDefaultController, TransformStream, TransformStreamDefaultController, TextDecoderStream, TextEncoderStream,
    each, isStream, source, ofBytes, collect, usable, disturbed, abandon,
  };
};
//# sourceURL=rootlink:streams
