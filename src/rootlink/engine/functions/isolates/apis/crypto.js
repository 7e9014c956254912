// crypto: https://w3c.github.io/webcrypto. Random values are made here, from a seed of the host's for this call alone; the rest is
// the host's operation `subtle`. There are digest; HMAC: generate, import, export, sign, verify; AES-GCM: generate, import, export,
// encrypt, decrypt; ECDSA (P-256, P-384) and Ed25519: import and export of public keys, verify.
(bridge) => {
  'use strict';
  const HASHES = ['SHA-1', 'SHA-256', 'SHA-384', 'SHA-512'];
  const HASH_BLOCKS = { 'SHA-1': 64, 'SHA-256': 64, 'SHA-384': 128, 'SHA-512': 128 }; // bytes
  const HMAC_NAMES = { 'SHA-1': 'HS1', 'SHA-256': 'HS256', 'SHA-384': 'HS384', 'SHA-512': 'HS512' }; // in a JWK
  const CURVES = {
    'P-256': { size: 32, alg: 'ES256', spki: '3059301306072a8648ce3d020106082a8648ce3d030107034200' },
    'P-384': { size: 48, alg: 'ES384', spki: '3076301006072a8648ce3d020106052b81040022036200' },
  };
  const ED25519_SPKI = '302a300506032b6570032100';
  const MAX_KEY_BITS = 65536;
  const QUOTA = 65536;

  // ChaCha20 (RFC 8439) with the call's seed as key: its key stream is the random source.
  const rotate = (word, by) => (word << by) | (word >>> (32 - by));
  const quarter = (x, a, b, c, d) => {
    x[a] += x[b]; x[d] = rotate(x[d] ^ x[a], 16);
    x[c] += x[d]; x[b] = rotate(x[b] ^ x[c], 12);
    x[a] += x[b]; x[d] = rotate(x[d] ^ x[a], 8);
    x[c] += x[d]; x[b] = rotate(x[b] ^ x[c], 7);
  };
  const block = (key, counter) => {
    const start = new Uint32Array([0x61707865, 0x3320646e, 0x79622d32, 0x6b206574, ...key, counter, 0, 0, 0]);
    const x = start.slice();
    for (let round = 0; round < 10; round++) {
      quarter(x, 0, 4, 8, 12); quarter(x, 1, 5, 9, 13); quarter(x, 2, 6, 10, 14); quarter(x, 3, 7, 11, 15);
      quarter(x, 0, 5, 10, 15); quarter(x, 1, 6, 11, 12); quarter(x, 2, 7, 8, 13); quarter(x, 3, 4, 9, 14);
    }
    for (let i = 0; i < 16; i++) x[i] += start[i];
    return new Uint8Array(x.buffer);
  };

  const stream = (seed) => {
    const key = new Uint32Array(Uint8Array.fromHex(seed).buffer);
    let counter = 0;
    return (bytes) => {
      for (let i = 0; i < bytes.length; i += 64) bytes.set(block(key, counter++).subarray(0, Math.min(64, bytes.length - i)), i);
    };
  };

  const bytesOf = (value, what = 'the data') => {
    if (value instanceof ArrayBuffer) return new Uint8Array(value);
    if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
    throw new TypeError(`crypto.subtle: ${what} must be an ArrayBuffer or a view of one`);
  };

  const refused = (name, message) => bridge.fault(name, `crypto.subtle: ${message}`, Error);
  const quoted = (value) => bridge.text(value).slice(0, 40);
  const base64url = (bytes) => bytes.toBase64({ alphabet: 'base64url', omitPadding: true });

  // ── algorithms ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  const NAMES = [...HASHES, 'HMAC', 'AES-GCM', 'ECDSA', 'Ed25519'];

  // The algorithm as a dictionary with the name as the standard writes it. `wanted`: those that can do what is asked for.
  const normal = (algorithm, wanted, what) => {
    const given = Object(algorithm) === algorithm ? algorithm : { name: algorithm ?? 'undefined' };
    if (given.name === undefined) throw new TypeError('crypto.subtle: an algorithm is a name, or an object with a name');
    const written = bridge.text(given.name);
    const name = NAMES.find((known) => known.toLowerCase() === written.toLowerCase());
    if (name === undefined || !wanted.includes(name)) throw refused('NotSupportedError', `${quoted(written)} is not supported for ${what}; these are: ${wanted.join(', ')}`);
    return [name, given];
  };

  const hashOf = ({ hash }) => {
    if (hash === undefined) throw new TypeError('crypto.subtle: the algorithm needs a hash');
    return normal(hash, HASHES, 'a hash')[0];
  };

  const curveOf = ({ namedCurve }) => {
    if (namedCurve === undefined) throw new TypeError('crypto.subtle: the algorithm needs a namedCurve');
    const curve = bridge.text(namedCurve);
    if (!Object.hasOwn(CURVES, curve)) throw refused('NotSupportedError', `the curve ${quoted(curve)} is not supported; these are: ${Object.keys(CURVES).join(', ')}`);
    return curve;
  };

  // ── keys ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

  const USAGES = ['encrypt', 'decrypt', 'sign', 'verify', 'deriveKey', 'deriveBits', 'wrapKey', 'unwrapKey'];
  const ALLOWED = { HMAC: ['sign', 'verify'], 'AES-GCM': ['encrypt', 'decrypt', 'wrapKey', 'unwrapKey'], ECDSA: ['verify'], Ed25519: ['verify'] };
  const FORMATS = ['raw', 'spki', 'pkcs8', 'jwk'];
  const MAKER = {};

  class CryptoKey {
    #bytes;
    constructor(maker, bytes, algorithm, extractable, usages) {
      if (maker !== MAKER) throw new TypeError('Illegal constructor');
      this.#bytes = bytes;
      this.type = algorithm.name === 'HMAC' || algorithm.name === 'AES-GCM' ? 'secret' : 'public';
      this.extractable = extractable;
      this.algorithm = Object.freeze(algorithm);
      this.usages = Object.freeze(usages);
      Object.freeze(this);
    }
    get [Symbol.toStringTag]() {
      return 'CryptoKey';
    }
    static bytes(key) {
      if (Object(key) !== key || !(#bytes in key)) throw new TypeError('crypto.subtle: this is not a key');
      return key.#bytes;
    }
  }
  const bytesOfKey = CryptoKey.bytes;
  delete CryptoKey.bytes; // a body must not read a key that is not extractable
  bridge.harden(CryptoKey);

  const usagesOf = (given, name) => {
    const usages = [...given].map(bridge.text);
    const unknown = usages.find((usage) => !USAGES.includes(usage));
    if (unknown !== undefined) throw new TypeError(`crypto.subtle: ${quoted(unknown)} is not a key usage`);
    const wrong = usages.find((usage) => !ALLOWED[name].includes(usage));
    if (wrong !== undefined) throw refused('SyntaxError', `a key of ${name} can't be used to ${wrong}`);
    return USAGES.filter((usage) => usages.includes(usage));
  };

  const finishKey = (bytes, algorithm, extractable, usages) => {
    const key = new CryptoKey(MAKER, bytes, algorithm, extractable, usages);
    if (key.type === 'secret' && usages.length === 0) throw refused('SyntaxError', 'a secret key needs a usage');
    return key;
  };

  const hmacKey = (hash, bits) => ({ name: 'HMAC', length: bits, hash: Object.freeze({ name: hash }) });

  // A key to be used: of the algorithm, and allowed to.
  const usable = (key, name, usage) => {
    const bytes = bytesOfKey(key);
    if (key.algorithm.name !== name) throw refused('InvalidAccessError', `the key is not one of ${name}`);
    if (!key.usages.includes(usage)) throw refused('InvalidAccessError', `the key is not for ${usage}`);
    return bytes.toBase64();
  };

  // ── JSON Web Keys (RFC 7517) ───────────────────────────────────────────────────────────────────────────────────────────

  const member = (jwk, name, size) => {
    try {
      const bytes = Uint8Array.fromBase64(jwk[name], { alphabet: 'base64url' });
      if (typeof jwk[name] === 'string' && (size === undefined || bytes.length === size)) return bytes;
    } catch {}
    throw refused('DataError', `the JWK's ${name} is not ${size === undefined ? '' : `${size} bytes of `}base64url`);
  };

  const checkJwk = (jwk, { kty, alg, crv, use }, extractable, usages) => {
    const expect = (name, wanted) => {
      if (jwk[name] !== wanted) throw refused('DataError', `the JWK's ${name} must be ${wanted}`);
    };
    expect('kty', kty);
    if (crv !== undefined) expect('crv', crv);
    if (alg !== undefined && jwk.alg !== undefined) expect('alg', alg);
    if (jwk.use !== undefined && usages.length) expect('use', use);
    if (jwk.key_ops !== undefined) {
      const listed = Array.isArray(jwk.key_ops) ? jwk.key_ops : [];
      if (new Set(listed).size !== listed.length || !usages.every((usage) => listed.includes(usage))) throw refused('DataError', "the JWK's key_ops do not have every usage, once");
    }
    if (jwk.ext === false && extractable) throw refused('DataError', 'the JWK is not extractable');
  };

  // ── reading keys ───────────────────────────────────────────────────────────────────────────────────────────────────────

  const secret = (format, data, check) => {
    if (format === 'raw') return data;
    if (format !== 'jwk') throw refused('NotSupportedError', `a secret key is not read as ${format}; raw and jwk are`);
    const bytes = member(data, 'k');
    check(bytes);
    return bytes;
  };

  const readHmac = (format, data, algorithm, extractable, usages) => {
    const hash = hashOf(algorithm);
    const bytes = secret(format, data, () => checkJwk(data, { kty: 'oct', alg: HMAC_NAMES[hash], use: 'sig' }, extractable, usages));
    const bits = bytes.length * 8;
    if (bits === 0) throw refused('DataError', 'an HMAC key is not empty');
    if (algorithm.length !== undefined && Number(algorithm.length) !== bits) throw refused('DataError', `the key has ${bits} bits, and length says otherwise`);
    return [bytes, hmacKey(hash, bits)];
  };

  const readAes = (format, data, algorithm, extractable, usages) => {
    const bytes = secret(format, data, (found) => checkJwk(data, { kty: 'oct', alg: `A${found.length * 8}GCM`, use: 'enc' }, extractable, usages));
    if (![16, 24, 32].includes(bytes.length)) throw refused('DataError', 'an AES key has 128, 192 or 256 bits');
    return [bytes, { name: 'AES-GCM', length: bytes.length * 8 }];
  };

  // Public keys are judged by the host: these make of them what it takes, as raw or spki.
  const readEc = (format, data, algorithm, extractable, usages) => {
    const namedCurve = curveOf(algorithm);
    const { size, alg } = CURVES[namedCurve];
    const found = { name: 'ECDSA', namedCurve };
    if (format !== 'jwk') return [data, found];
    checkJwk(data, { kty: 'EC', crv: namedCurve, alg, use: 'sig' }, extractable, usages);
    if (data.d !== undefined) throw refused('NotSupportedError', 'private keys of ECDSA are not supported');
    return [Uint8Array.of(4, ...member(data, 'x', size), ...member(data, 'y', size)), found];
  };

  const readEd = (format, data, algorithm, extractable, usages) => {
    const found = { name: 'Ed25519' };
    if (format !== 'jwk') return [data, found];
    if (data.alg === 'EdDSA' || data.alg === 'Ed25519' || data.alg === undefined) checkJwk(data, { kty: 'OKP', crv: 'Ed25519', use: 'sig' }, extractable, usages);
    else throw refused('DataError', "the JWK's alg must be EdDSA");
    if (data.d !== undefined) throw refused('NotSupportedError', 'private keys of Ed25519 are not supported');
    return [member(data, 'x', 32), found];
  };

  const READERS = { HMAC: readHmac, 'AES-GCM': readAes, ECDSA: readEc, Ed25519: readEd };

  const importKey = async (call, format, data, given, extractable, usages) => {
    if (!FORMATS.includes(format)) throw new TypeError(`crypto.subtle: ${quoted(format)} is not a key format`);
    const [name, algorithm] = normal(given, Object.keys(READERS), 'importKey');
    const isJwk = format === 'jwk';
    if (isJwk && Object(data) !== data) throw new TypeError('crypto.subtle: a JWK is an object');
    const held = isJwk ? data : bytesOf(data, 'the key').slice();
    if (format === 'pkcs8') throw refused('NotSupportedError', 'private keys are not supported');
    const wanted = usagesOf(usages, name);
    const [bytes, found] = READERS[name](format, held, algorithm, Boolean(extractable), wanted);
    if (name === 'HMAC' || name === 'AES-GCM') return finishKey(bytes, found, Boolean(extractable), wanted);
    const { x } = await bridge.ask(call, 'subtle', { o: 'import', f: isJwk ? 'raw' : format, c: found.namedCurve ?? name, key: bytes.toBase64() });
    return finishKey(Uint8Array.fromBase64(x), found, Boolean(extractable), wanted);
  };

  const jwkOf = ({ algorithm, extractable, usages }, bytes) => {
    const common = { key_ops: [...usages], ext: extractable };
    if (algorithm.name === 'HMAC') return { ...common, kty: 'oct', k: base64url(bytes), alg: HMAC_NAMES[algorithm.hash.name] };
    if (algorithm.name === 'AES-GCM') return { ...common, kty: 'oct', k: base64url(bytes), alg: `A${algorithm.length}GCM` };
    if (algorithm.name === 'Ed25519') return { ...common, kty: 'OKP', crv: 'Ed25519', x: base64url(bytes), alg: 'Ed25519' };
    const { size } = CURVES[algorithm.namedCurve];
    return { ...common, kty: 'EC', crv: algorithm.namedCurve, x: base64url(bytes.subarray(1, 1 + size)), y: base64url(bytes.subarray(1 + size)) };
  };

  const exportKey = async (format, key) => {
    if (!FORMATS.includes(format)) throw new TypeError(`crypto.subtle: ${quoted(format)} is not a key format`);
    const bytes = bytesOfKey(key);
    if (!key.extractable) throw refused('InvalidAccessError', 'the key is not extractable');
    if (format === 'jwk') return jwkOf(key, bytes);
    if (format === 'raw') return bytes.slice().buffer;
    if (key.type === 'secret') throw refused('NotSupportedError', `a secret key is not written as ${format}; raw and jwk are`);
    if (format === 'pkcs8') throw refused('NotSupportedError', 'private keys are not supported');
    const { name, namedCurve } = key.algorithm;
    return Uint8Array.of(...Uint8Array.fromHex(name === 'Ed25519' ? ED25519_SPKI : CURVES[namedCurve].spki), ...bytes).buffer;
  };
  bridge.harden(exportKey); // the one method that all calls share

  const generateKey = async (random, given, extractable, usages) => {
    const [name, algorithm] = normal(given, ['HMAC', 'AES-GCM'], 'generateKey');
    const hash = name === 'HMAC' ? hashOf(algorithm) : '';
    if (name === 'AES-GCM' && algorithm.length === undefined) throw new TypeError('crypto.subtle: the algorithm needs a length');
    const bits = Number(algorithm.length ?? HASH_BLOCKS[hash] * 8);
    const wanted = usagesOf(usages, name);
    if (name === 'AES-GCM' ? ![128, 192, 256].includes(bits) : !(bits > 0 && bits <= MAX_KEY_BITS && bits % 8 === 0)) {
      throw refused('OperationError', name === 'AES-GCM' ? 'an AES key has 128, 192 or 256 bits' : `an HMAC key has 8 to ${MAX_KEY_BITS} bits, in whole bytes`);
    }
    const bytes = new Uint8Array(bits / 8);
    random(bytes);
    return finishKey(bytes, name === 'HMAC' ? hmacKey(hash, bits) : { name, length: bits }, Boolean(extractable), wanted);
  };

  // ── operations ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  const gcm = (algorithm) => {
    if (algorithm.iv === undefined) throw new TypeError('crypto.subtle: AES-GCM needs an iv');
    const fields = { iv: bytesOf(algorithm.iv, 'the iv').toBase64(), t: 128 };
    if (algorithm.additionalData !== undefined) fields.d = bytesOf(algorithm.additionalData, 'additionalData').toBase64();
    if (algorithm.tagLength !== undefined) fields.t = Number(algorithm.tagLength);
    if (![32, 64, 96, 104, 112, 120, 128].includes(fields.t)) throw refused('OperationError', 'tagLength is 32, 64, 96, 104, 112, 120 or 128');
    return fields;
  };

  const subtleOf = (call, random) => {
    const compute = async (o, fields) => Uint8Array.fromBase64((await bridge.ask(call, 'subtle', { o, ...fields })).x).buffer;
    const crypt = (usage) => async (given, key, data) => {
      const [name, algorithm] = normal(given, ['AES-GCM'], usage);
      const x = bytesOf(data).toBase64();
      const fields = gcm(algorithm);
      return compute(usage, { ...fields, key: usable(key, name, usage), x });
    };
    const verify = async (given, key, signature, data) => {
      const [name, algorithm] = normal(given, ['HMAC', 'ECDSA', 'Ed25519'], 'verify');
      const fields = { s: bytesOf(signature, 'the signature').toBase64(), x: bytesOf(data).toBase64() };
      if (name === 'ECDSA') fields.a = hashOf(algorithm);
      fields.key = usable(key, name, 'verify');
      if (name === 'HMAC') fields.a = key.algorithm.hash.name;
      else fields.c = key.algorithm.namedCurve ?? name;
      return (await bridge.ask(call, 'subtle', { o: name === 'HMAC' ? 'verify' : 'check', ...fields })).v;
    };
    const sign = async (given, key, data) => {
      const [name] = normal(given, ['HMAC', 'ECDSA', 'Ed25519'], 'sign');
      const x = bytesOf(data).toBase64();
      const bytes = usable(key, name, 'sign'); // no public key is for it
      return compute('sign', { a: key.algorithm.hash.name, key: bytes, x });
    };
    const missing = (what) => async () => {
      throw refused('NotSupportedError', `${what} is not supported`);
    };
    return {
      digest: async (algorithm, data) => compute('digest', { a: normal(algorithm, HASHES, 'digest')[0], x: bytesOf(data).toBase64() }),
      importKey: async (...values) => importKey(call, ...values),
      exportKey,
      generateKey: async (...values) => generateKey(random, ...values),
      sign,
      verify,
      encrypt: crypt('encrypt'),
      decrypt: crypt('decrypt'),
      deriveKey: missing('deriveKey'),
      deriveBits: missing('deriveBits'),
      wrapKey: missing('wrapKey'),
      unwrapKey: missing('unwrapKey'),
    };
  };

  const INTEGERS = [Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array, BigInt64Array, BigUint64Array];

  return (call) => {
    let fill = null;
    const random = (bytes) => (fill ??= stream(call.seed))(bytes);
    const getRandomValues = (array) => {
      if (!INTEGERS.some((Type) => array instanceof Type)) throw bridge.fault('TypeMismatchError', 'getRandomValues needs an array of integers', Error);
      if (array.byteLength > QUOTA) throw bridge.fault('QuotaExceededError', `getRandomValues gives at most ${QUOTA} bytes at once`, Error);
      random(bytesOf(array));
      return array;
    };
    const randomUUID = () => {
      const bytes = getRandomValues(new Uint8Array(16));
      bytes[6] = (bytes[6] & 0x0f) | 0x40;
      bytes[8] = (bytes[8] & 0x3f) | 0x80;
      return bytes.toHex().replace(/(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
    };
    return { crypto: { getRandomValues, randomUUID, subtle: subtleOf(call, random) } };
  };
};
//# sourceURL=rootlink:crypto
