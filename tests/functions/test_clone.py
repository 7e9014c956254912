"""structuredClone, against Node's over a table."""

from __future__ import annotations

from tests.functions.ground import Stage
from tests.functions.node import in_node

HELP = r"""
  const tag = (v) => {
    if (typeof v === 'bigint') return `${v}n`;
    if (typeof v === 'undefined' || Number.isNaN(v) || Object.is(v, -0) || v === Infinity) return `special ${Object.is(v, -0) ? '-0' : v}`;
    if (v === null || typeof v !== 'object') return v;
    if (v instanceof Map) return ['Map', [...v].map(([key, item]) => [tag(key), tag(item)]), Object.keys(v)];
    if (v instanceof Set) return ['Set', [...v].map(tag), Object.keys(v)];
    if (v instanceof Date) return ['Date', tag(v.getTime())];
    if (v instanceof RegExp) return ['RegExp', String(v), v.lastIndex];
    if (v instanceof ArrayBuffer) return ['ArrayBuffer', ...new Uint8Array(v)];
    if (v instanceof DataView) return ['DataView', v.byteOffset, v.byteLength, tag(v.buffer)];
    if (ArrayBuffer.isView(v)) return [v.constructor.name, v.byteOffset, v.length, tag(v.buffer)];
    if (v instanceof Error) return [v.constructor.name, v.name, v.message, typeof v.stack, Object.keys(v), 'cause' in v ? tag(v.cause) : 'no cause'];
    if (v instanceof Boolean || v instanceof Number || v instanceof String || v instanceof BigInt) return ['boxed', v.constructor.name, String(v)];
    if (Array.isArray(v)) return ['Array', v.length, Object.keys(v).map((key) => [key, tag(v[key])])];
    return [Object.getPrototypeOf(v) === Object.prototype ? 'Object' : 'other', Object.keys(v).map((key) => [key, tag(v[key])])];
  };
  class Point { constructor() { this.x = 1 } get y() { return 2 } }
  const out = {};
  const run = (name, f) => { try { out[name] = tag(f()) } catch (error) { out[name] = ['refused', error.name, error instanceof DOMException ? error.code : null] } };
"""

VALUES = {
    "primitives": "[1, 'x', true, null, undefined, 10n, NaN, -0, Infinity]",
    "lone surrogate": "'\\ud800'.length",
    "object": "({ a: 1, b: { c: [1, , 3] } })",
    "class": "new Point()",
    "no prototype": "Object.assign(Object.create(null), { a: 1 })",
    "inherited": "Object.create({ a: 1 }, { b: { value: 2, enumerable: true }, c: { value: 3 } })",
    "getter": "({ get a() { return [1] } })",
    "getter that throws": "({ get a() { throw new RangeError('no') } })",
    "symbol key": "({ [Symbol('a')]: 1, b: 2 })",
    "__proto__ key": "JSON.parse('{\"__proto__\": {\"a\": 1}}')",
    "array with more": "Object.assign([1, 2], { more: 3 })",
    "sparse": "[, , 1, ,]",
    "map": "new Map([[{ a: 1 }, new Set([1, 'x', NaN])], ['k', new Map()]])",
    "map with more": "Object.assign(new Map([[1, 2]]), { more: 3 })",
    "set with more": "Object.assign(new Set([1]), { more: 3 })",
    "date": "new Date(86400000)",
    "no date": "new Date(NaN)",
    "regexp": "Object.assign(/a(b)?/giu, { lastIndex: 3 })",
    "boxed": "[Object(1), Object('abc'), Object(false), Object(7n)]",
    "boxed symbol": "Object(Symbol('x'))",
    "buffer": "new Uint8Array([1, 2, 3]).buffer",
    "view": "new Uint16Array(new Uint8Array([1, 2, 3, 4, 5, 6]).buffer, 2, 1)",
    "floats": "new Float64Array([1.5, -0])",
    "big integers": "new BigInt64Array([5n])",
    "data view": "new DataView(new ArrayBuffer(8), 2, 4)",
    "two views of one": "(() => { const b = new ArrayBuffer(4); const c = structuredClone([new Uint8Array(b), new Uint8Array(b, 1)]); c[0][1] = 9; return [c, c[0].buffer === c[1].buffer] })()",
    "error": "new Error('e')",
    "type error": "new TypeError('t', { cause: new RangeError('r') })",
    "named error": "Object.assign(new Error('e'), { name: 'Mine', extra: 1 })",
    "error named as another": "Object.assign(new Error('e'), { name: 'TypeError' })",
    "subclass of error": "new (class Mine extends SyntaxError {})('s')",
    "aggregate": "new AggregateError([1], 'many')",
    "error with an object as message": "Object.defineProperty(new Error('x'), 'message', { value: { toString: () => 'said' } })",
    "error without message": "new Error()",
    "cycle": "(() => { const a = { b: [] }; a.b.push(a); const c = structuredClone(a); return [c.b[0] === c, c !== a] })()",
    "cycle of a map": "(() => { const m = new Map(); m.set(m, m); const c = structuredClone(m); return [c.get(c) === c, c.size] })()",
    "same twice": "(() => { const a = {}; const [b, c] = structuredClone([a, a]); return b === c })()",
    "function": "() => 1",
    "function inside": "({ a: { f() {} } })",
    "symbol": "Symbol('x')",
    "symbol inside": "[Symbol.iterator]",
    "promise": "Promise.resolve(1)",
    "weak map": "new WeakMap()",
    "weak set": "new WeakSet()",
    "generator": "(function* () {})()",
    "array iterator": "[][Symbol.iterator]()",
    "arguments": "(function () { return arguments })(1, 2)",
    "proxy": "new Proxy({ a: 1 }, {})",
    "array by toStringTag": "({ [Symbol.toStringTag]: 'Map', a: 1 })",
    "faked map": "Object.create(Map.prototype)",
    "faked date": "Object.create(Date.prototype)",
    "JSON": "JSON",
    "Math": "Object.keys(structuredClone(Math))",
    "Intl": "new Intl.NumberFormat('en')",
    "map changed meanwhile": "(() => { const m = new Map([[1, { get a() { m.set(2, 3); return 1 } }]]); return m })()",
    "property gone meanwhile": "({ get a() { delete this.b; return 1 }, b: 2 })",
}  # fmt: skip

TABLE = (
    "() => {"
    + HELP
    + "\n".join(f"  run({name!r}, () => structuredClone({value}));" for name, value in VALUES.items())
    + """
  run('nothing given', () => structuredClone());
  run('transfer of no list', () => structuredClone(1, { transfer: 1 }));
  return out }"""
)


async def test_values_are_cloned_as_node_clones_them(stage: Stage) -> None:
    ours, theirs = await stage.output(TABLE), await in_node(TABLE)
    assert ours.pop("proxy") == ["Object", [["a", 1]]]  # V8 tells a script nothing of what is a proxy; Node refuses it
    assert theirs.pop("proxy") == ["refused", "DataCloneError", 25]
    assert {name: (ours[name], theirs[name]) for name in theirs if ours[name] != theirs[name]} == {}


async def test_a_value_too_deep_for_a_clone_is_a_range_error(stage: Stage) -> None:
    error = await stage.error(
        "() => { let deep = []; for (let i = 0; i < 1e5; i++) deep = [deep]; return structuredClone(deep) }"
    )
    assert error["name"] == "RangeError"
    assert await stage.output("() => 1") == 1
