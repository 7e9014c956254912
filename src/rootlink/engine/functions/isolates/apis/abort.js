// AbortController and AbortSignal: https://dom.spec.whatwg.org/#aborting-ongoing-activities. Of events there is only what a signal needs.
(bridge) => {
  'use strict';
  const aborted = () => bridge.fault('AbortError', 'This operation was aborted', Error);
  const timedOut = () => bridge.fault('TimeoutError', 'The operation was aborted due to timeout', Error);
  const INSIDE = Symbol('made by the platform');

  let abort; // (signal, reason); set by the class, so nobody else can abort a signal
  let follow; // (signal, act): `act(reason)` when it is aborted, before its listeners; returns how to stop that
  let isSignal;

  const listenerOf = (listener) => {
    if (listener !== null && typeof listener !== 'object' && typeof listener !== 'function') {
      throw new TypeError('addEventListener needs a function, or an object with handleEvent');
    }
    return listener;
  };

  class AbortSignal {
    #aborted = false;
    #reason;
    #acts = new Set();
    #listeners = [];
    #handler = null;

    constructor(inside) {
      if (inside !== INSIDE) throw new TypeError('Illegal constructor: signals come from AbortController and AbortSignal');
    }
    static {
      isSignal = (value) => typeof value === 'object' && value !== null && #aborted in value;
      follow = (signal, act) => {
        signal.#acts.add(act);
        return () => signal.#acts.delete(act);
      };
      abort = (signal, reason) => {
        if (signal.#aborted) return;
        signal.#aborted = true;
        signal.#reason = reason;
        const acts = [...signal.#acts];
        signal.#acts.clear();
        for (const act of acts) act(reason);
        signal.#tell();
      };
    }
    static abort(reason = aborted()) {
      const signal = new AbortSignal(INSIDE);
      abort(signal, reason);
      return signal;
    }
    static timeout(milliseconds) {
      const signal = new AbortSignal(INSIDE);
      bridge.offer(bridge.current(), 'setTimeout')(() => abort(signal, timedOut()), milliseconds);
      return signal;
    }
    static any(signals) {
      const sources = [...signals];
      if (!sources.every(isSignal)) throw new TypeError('AbortSignal.any needs a list of signals');
      const joined = new AbortSignal(INSIDE);
      const first = sources.find((signal) => signal.#aborted);
      if (first !== undefined) abort(joined, first.#reason);
      else for (const signal of sources) follow(signal, (reason) => abort(joined, reason));
      return joined;
    }
    get aborted() {
      return this.#aborted;
    }
    get reason() {
      return this.#reason;
    }
    throwIfAborted() {
      if (this.#aborted) throw this.#reason;
    }
    get onabort() {
      return this.#handler;
    }
    set onabort(value) {
      this.#handler = typeof value === 'function' ? value : null;
    }
    addEventListener(type, listener, options) {
      if (listenerOf(listener) === null || bridge.text(type) !== 'abort') return;
      if (this.#listeners.some((entry) => entry.listener === listener)) return;
      const entry = { listener, once: Boolean(options?.once) };
      this.#listeners.push(entry);
      if (isSignal(options?.signal)) follow(options.signal, () => this.removeEventListener(type, listener));
    }
    removeEventListener(type, listener) {
      if (bridge.text(type) === 'abort') this.#listeners = this.#listeners.filter((entry) => entry.listener !== listener);
    }
    dispatchEvent(event) {
      if (bridge.text(event?.type) === 'abort') this.#tell(event);
      return true;
    }
    // A listener that throws fails the run, as an error in a timer does; the others are still told.
    #tell(event = { type: 'abort', target: this, currentTarget: this, isTrusted: true, bubbles: false, cancelable: false, defaultPrevented: false }) {
      const told = this.#listeners;
      this.#listeners = told.filter((entry) => !entry.once);
      const acts = told.map(({ listener }) => () => (typeof listener === 'function' ? listener.call(this, event) : listener.handleEvent(event)));
      if (this.#handler !== null) acts.unshift(() => this.#handler.call(this, event));
      for (const act of acts) bridge.guarded(bridge.current(), act, []);
    }
    get [Symbol.toStringTag]() {
      return 'AbortSignal';
    }
  }

  class AbortController {
    #signal = new AbortSignal(INSIDE);
    get signal() {
      return this.#signal;
    }
    abort(reason = aborted()) {
      abort(this.#signal, reason);
    }
    get [Symbol.toStringTag]() {
      return 'AbortController';
    }
  }

  return { AbortController, AbortSignal, isSignal, follow, idle: () => new AbortSignal(INSIDE) };
};
//# sourceURL=rootlink:abort
