// structuredClone: https://html.spec.whatwg.org/#structuredserializeinternal for the types an isolate has. Nothing is transferred.
(bridge) => {
  'use strict';
  const ERRORS = { Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };
  const refuse = (what) => bridge.fault('DataCloneError', `${what} could not be cloned`, Error);

  const cloneError = (error, copy) => {
    const Base = ERRORS[error.name] ?? Error;
    const clone = new Base(error.message);
    Object.defineProperty(clone, 'stack', { value: bridge.text(error.stack), writable: true, configurable: true });
    if ('cause' in error) Object.defineProperty(clone, 'cause', { value: copy(error.cause), writable: true, configurable: true });
    return clone;
  };

  const cloneView = (view, copy) => {
    const buffer = copy(view.buffer);
    if (view instanceof DataView) return new DataView(buffer, view.byteOffset, view.byteLength);
    return new view.constructor(buffer, view.byteOffset, view.length);
  };

  const isBoxed = (value) => value instanceof Boolean || value instanceof Number || value instanceof String || value instanceof BigInt;

  // An empty object of the same kind for containers, the finished clone for the rest.
  const shell = (value, copy) => {
    if (Array.isArray(value)) return new Array(value.length);
    if (value instanceof Map) return new Map();
    if (value instanceof Set) return new Set();
    if (value instanceof Date) return new Date(value.getTime());
    if (value instanceof RegExp) return new RegExp(value.source, value.flags);
    if (value instanceof ArrayBuffer) return value.slice(0);
    if (ArrayBuffer.isView(value)) return cloneView(value, copy);
    if (value instanceof Error) return cloneError(value, copy);
    if (isBoxed(value)) return Object(value.valueOf());
    if (value instanceof Promise || value instanceof WeakMap || value instanceof WeakSet) throw refuse('This object');
    return {};
  };

  const isLeaf = (value) => value instanceof Date || value instanceof RegExp || value instanceof Error || value instanceof ArrayBuffer || ArrayBuffer.isView(value) || isBoxed(value);

  const structuredClone = (input, options) => {
    if (options?.transfer?.length) throw refuse('A transferred object');
    const seen = new Map();
    const copy = (value) => {
      if (typeof value === 'function') throw refuse(bridge.text(value.name) || 'A function');
      if (typeof value === 'symbol') throw refuse('A symbol');
      if (typeof value !== 'object' || value === null) return value;
      if (seen.has(value)) return seen.get(value);
      const clone = shell(value, copy);
      seen.set(value, clone);
      if (isLeaf(value)) return clone;
      if (value instanceof Map) for (const [key, item] of [...value]) clone.set(copy(key), copy(item));
      else if (value instanceof Set) for (const item of [...value]) clone.add(copy(item));
      else {
        for (const key of Object.keys(value)) {
          Object.defineProperty(clone, key, { value: copy(value[key]), writable: true, enumerable: true, configurable: true });
        }
      }
      return clone;
    };
    return copy(input);
  };

  return { structuredClone };
};
//# sourceURL=rootlink:clone
