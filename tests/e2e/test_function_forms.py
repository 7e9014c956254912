"""Modules and TypeScript through the product, engines in the kernel tier: Node's child runs there too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.instance import KERNEL, Instance, closing

DOUBLE = """interface In { n: number }
export default async function main(input: In): Promise<number> {
  if (input.n < 0) throw new RangeError('negative');
  return input.n * 2;
}
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120), pytest.mark.usefixtures("doors")]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    yield from closing(Instance(tmp_path_factory.mktemp("forms") / "home", *KERNEL))


def test_a_typescript_module_is_deployed_runs_and_tells_where_it_threw(up: Instance) -> None:
    assert up.engine("PUT", "/functions", {"name": "double", "code": DOUBLE}).status in (200, 201)
    ran = up.engine("POST", "/functions/double/invoke", {"input": {"n": 21}}).data
    assert (ran["status"], ran["output"]) == ("ok", 42)
    error = up.engine("POST", "/functions/double/invoke", {"input": {"n": -1}}).data["error"]
    assert (error["name"], error["line"], error["column"]) == ("RangeError", 3, 26)
    assert "double.ts:3:26" in error["stack"]


def test_what_typescript_can_not_be_is_said_with_its_place(up: Instance) -> None:
    refused = up.engine(
        "PUT", "/functions", {"name": "colors", "code": "enum Color { Red }\nexport default (): Color => Color.Red"}
    )
    assert refused.status == 400
    assert "enum is not supported here at line 1, column 1" in refused.message
