// AbortController and AbortSignal, made per call: a signal's timeout is a timer of that call's.
(bridge) => {
  'use strict';
  const aborted = () => bridge.fault('AbortError', 'This operation was aborted', Error);
  const timedOut = () => bridge.fault('TimeoutError', 'The operation was aborted due to timeout', Error);

  return (call) => {
    let abort; // (signal, reason); set by the class, so nobody else can abort a signal

    class AbortSignal {
      #aborted = false;
      #reason;
      #listeners = new Set();
      onabort = null;

      static {
        abort = (signal, reason) => {
          if (signal.#aborted) return;
          signal.#aborted = true;
          signal.#reason = reason;
          const event = { type: 'abort', target: signal };
          signal.onabort?.(event);
          for (const listener of signal.#listeners) (listener.handleEvent ?? listener).call(signal, event);
          signal.#listeners.clear();
        };
      }
      static abort(reason = aborted()) {
        const signal = new AbortSignal();
        abort(signal, reason);
        return signal;
      }
      static timeout(milliseconds) {
        const signal = new AbortSignal();
        bridge.offer(call, 'setTimeout')(() => abort(signal, timedOut()), milliseconds);
        return signal;
      }
      static any(signals) {
        const joined = new AbortSignal();
        for (const signal of signals) {
          if (signal.aborted) abort(joined, signal.reason);
          else signal.addEventListener('abort', () => abort(joined, signal.reason));
        }
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
      addEventListener(type, listener) {
        if (type === 'abort' && listener && !this.#aborted) this.#listeners.add(listener);
      }
      removeEventListener(type, listener) {
        if (type === 'abort') this.#listeners.delete(listener);
      }
    }

    class AbortController {
      #signal = new AbortSignal();
      get signal() {
        return this.#signal;
      }
      abort(reason = aborted()) {
        abort(this.#signal, reason);
      }
    }

    return { AbortController, AbortSignal };
  };
};
//# sourceURL=rootlink:abort
