"""The generated messages are those of etcd.proto, and gRPC is imported in one place."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flanneld_py.store

STORE = Path(flanneld_py.store.__file__).parent


def test_generated_files_are_up_to_date(tmp_path):
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{STORE}", f"--python_out={tmp_path}"]
    subprocess.run([*command, f"--pyi_out={tmp_path}", str(STORE / "etcd.proto")], check=True)
    for name in ("etcd_pb2.py", "etcd_pb2.pyi"):
        assert (tmp_path / name).read_text() == (STORE / name).read_text(), "run: make proto"


@pytest.mark.slow
def test_the_grpc_library_is_not_imported():
    importers = set()
    for path in STORE.parent.rglob("*.py"):
        for statement in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(statement, ast.Import):
                names = [alias.name for alias in statement.names]
            elif isinstance(statement, ast.ImportFrom):
                names = [statement.module or ""]
            if any(name.split(".")[0] == "grpc" for name in names):
                importers.add(path.name)
    # Its connection is our own (grpc_connection.py): the library would be a quarter of the daemon's memory.
    assert importers == set()


@pytest.mark.slow
def test_an_etcd_that_is_away_is_told_by_an_exception_alone():
    program = (
        "import asyncio, random\n"
        "from flanneld_py.core.lease import LeaseAttrs\n"
        "from flanneld_py.store.etcd_options import EtcdOptions, parse_endpoints\n"
        "from flanneld_py.store.etcd_subnet_manager import EtcdSubnetManager\n"
        "async def main():\n"
        "    options = EtcdOptions(parse_endpoints('http://127.0.0.1:1,https://127.0.0.1:1'))\n"
        "    await EtcdSubnetManager(options, random.Random(1)).find_own(LeaseAttrs(1, None, ''))\n"
        "try:\n"
        "    asyncio.run(main())\n"
        "except Exception as error:\n"
        "    print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("StoreError\n", "")
