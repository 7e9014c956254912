// structuredClone: https://html.spec.whatwg.org/#structuredserializeinternal for the types an isolate has. Of what
// can be transferred there are only buffers.
(bridge) => {
  'use strict';
  const ERRORS = { Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };
  const refuse = (what) => bridge.fault('DataCloneError', `${what} could not be cloned`, Error);

  // Of the platform's own: blobs are copied, the rest refuses.
  const isPlatform = (value) => {
    const [http, forms, streams, abort] = ['http', 'forms', 'streams', 'abort'].map(bridge.peek);
    if (http?.isRequest(value) || http?.isResponse(value) || (http && value instanceof http.Headers)) return true;
    return Boolean(forms?.isForm(value) || streams?.isStream(value) || abort?.isSignal(value));
  };

  const isBlob = (value) => Boolean(bridge.peek('forms')?.isBlob(value));

  const cloneBlob = (blob) => {
    const { Blob, File } = bridge.peek('forms');
    if (!(blob instanceof File)) return new Blob([blob], { type: blob.type });
    return new File([blob], blob.name, { type: blob.type, lastModified: blob.lastModified });
  };

  const cloneError = (error, copy) => {
    const DOMException = bridge.peek('dom')?.DOMException;
    if (DOMException !== undefined && error instanceof DOMException) return new DOMException(error.message, error.name);
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

  // Of the type, and not an object that only inherits from its prototype.
  const holds = (Type, read) => (value) => {
    if (!(value instanceof Type)) return false;
    try {
      read.call(value);
      return true;
    } catch {
      return false;
    }
  };
  const sizeOf = (prototype) => Object.getOwnPropertyDescriptor(prototype, 'size').get;
  const isMap = holds(Map, sizeOf(Map.prototype));
  const isSet = holds(Set, sizeOf(Set.prototype));
  const isDate = holds(Date, Date.prototype.getTime);

  const isBoxed = (value) => value instanceof Boolean || value instanceof Number || value instanceof String || value instanceof BigInt;

  // What has a state inside that no property shows. A proxy can't be told from what it stands for: it is copied as that.
  const intl = Object.getOwnPropertyNames(Intl).map((name) => Intl[name]);
  const REFUSED = [Promise, WeakMap, WeakSet, Symbol, Iterator, ...intl.filter((value) => value.prototype !== undefined)];
  const isArguments = (value) => value[Symbol.toStringTag] === undefined && Object.prototype.toString.call(value) === '[object Arguments]';

  // An empty object of the same kind for containers, the finished clone for the rest.
  const shell = (value, copy) => {
    if (Array.isArray(value)) return new Array(value.length);
    if (isMap(value)) return new Map();
    if (isSet(value)) return new Set();
    if (isDate(value)) return new Date(value.getTime());
    if (value instanceof RegExp) return new RegExp(value.source, value.flags);
    if (value instanceof ArrayBuffer) return value.slice(0);
    if (ArrayBuffer.isView(value)) return cloneView(value, copy);
    if (value instanceof Error) return cloneError(value, copy);
    if (isBoxed(value)) return Object(value.valueOf());
    if (isBlob(value)) return cloneBlob(value);
    if (isPlatform(value)) throw refuse(bridge.text(value));
    if (REFUSED.some((Type) => value instanceof Type) || isArguments(value)) throw refuse('This object');
    return {};
  };

  const isLeaf = (value) => isDate(value) || value instanceof RegExp || value instanceof Error || value instanceof ArrayBuffer || ArrayBuffer.isView(value) || isBoxed(value) || isBlob(value);

  const structuredClone = (...given) => {
    if (given.length === 0) throw new TypeError('structuredClone needs a value');
    const [input, options] = given;
    const seen = new Map();
    const transfer = [...(options?.transfer ?? [])];
    if (!transfer.every((value) => value instanceof ArrayBuffer && !value.detached)) throw refuse('A transferred object');
    if (new Set(transfer).size < transfer.length) throw refuse('A buffer that is transferred twice');
    const copy = (value) => {
      if (typeof value === 'function') throw refuse(bridge.text(value.name) || 'A function');
      if (typeof value === 'symbol') throw refuse('A symbol');
      if (typeof value !== 'object' || value === null) return value;
      if (seen.has(value)) return seen.get(value);
      const clone = shell(value, copy);
      seen.set(value, clone);
      if (isLeaf(value)) return clone;
      if (isMap(value)) for (const [key, item] of [...value]) clone.set(copy(key), copy(item));
      else if (isSet(value)) for (const item of [...value]) clone.add(copy(item));
      else {
        for (const key of Object.keys(value)) {
          if (!Object.hasOwn(value, key)) continue; // a getter took it away
          Object.defineProperty(clone, key, { value: copy(value[key]), writable: true, enumerable: true, configurable: true });
        }
      }
      return clone;
    };
    const clone = copy(input);
    for (const buffer of transfer) buffer.transfer(); // what it held was copied; here it is empty from now on
    return clone;
  };

  return { structuredClone };
};
//# sourceURL=rootlink:clone
