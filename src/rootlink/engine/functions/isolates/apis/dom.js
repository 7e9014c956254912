// DOMException: https://webidl.spec.whatwg.org/#idl-DOMException. What an aborted, timed out or refused piece of the platform throws.
(bridge) => {
  'use strict';
  const NAMES = [
    'IndexSizeError', '', 'HierarchyRequestError', 'WrongDocumentError', 'InvalidCharacterError', '', 'NoModificationAllowedError', 'NotFoundError',
    'NotSupportedError', 'InUseAttributeError', 'InvalidStateError', 'SyntaxError', 'InvalidModificationError', 'NamespaceError', 'InvalidAccessError', '',
    'TypeMismatchError', 'SecurityError', 'NetworkError', 'AbortError', 'URLMismatchError', 'QuotaExceededError', 'TimeoutError', 'InvalidNodeTypeError', 'DataCloneError',
  ];
  const CODES = { __proto__: null };
  NAMES.forEach((name, i) => {
    if (name !== '') CODES[name] = i + 1;
  });

  class DOMException extends Error {
    #message;
    #name;

    constructor(message = '', options = 'Error') {
      super();
      const named = typeof options === 'object' && options !== null;
      this.#message = bridge.text(message);
      this.#name = bridge.text(named ? (options.name ?? 'Error') : options);
      if (named && 'cause' in options) Object.defineProperty(this, 'cause', { value: options.cause, writable: true, configurable: true });
      const frames = bridge.text(this.stack).split('\n').slice(1);
      Object.defineProperty(this, 'stack', { value: [`${this.#name}: ${this.#message}`, ...frames].join('\n'), writable: true, configurable: true });
    }
    get name() {
      return this.#name;
    }
    get message() {
      return this.#message;
    }
    get code() {
      return CODES[this.#name] ?? 0;
    }
    get [Symbol.toStringTag]() {
      return 'DOMException';
    }
  }
  for (const name in CODES) {
    const constant = name.replace(/Error$/, '').replace(/(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])/g, '_').toUpperCase() + '_ERR';
    for (const place of [DOMException, DOMException.prototype]) Object.defineProperty(place, constant, { value: CODES[name], enumerable: true });
  }

  return { DOMException };
};
//# sourceURL=rootlink:dom
