"""Answers that are no etcd's, given by a server of the genuine gRPC library to what is asked without waiting."""

import random

import grpc
import pytest

from flanneld_py.core.errors import StoreError
from flanneld_py.store import etcd_pb2 as pb
from flanneld_py.store.etcd_api import RANGE
from flanneld_py.store.etcd_client import EtcdClient
from flanneld_py.store.etcd_options import EtcdOptions, parse_endpoints
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("loopback")

READABLE, UNREADABLE = pb.RangeRequest(), pb.RangeRequest(key=b"\xff")
"""Sent back as they are, the one is an empty response, and the other none."""


class Mirror(grpc.GenericRpcHandler):
    """Answers every call with its request."""

    def service(self, _):
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, request, _):
        return request


@pytest.fixture
async def client():
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Mirror(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = EtcdClient(EtcdOptions(parse_endpoints(f"http://127.0.0.1:{port}")), random.Random(0))  # noqa: S311
    await client.call(RANGE, READABLE)
    yield client
    await client.close()
    await server.stop(None)


async def test_what_cannot_be_read_is_no_answer_and_harms_no_other_question(client):
    answers = {}
    questions = [
        (request, lambda answer, index=index: answers.setdefault(index, answer))
        for index, request in enumerate((READABLE, UNREADABLE, READABLE))
    ]
    client.ask(RANGE, questions, 1e6)
    await until(lambda: len(answers) == 3)
    assert answers == {0: pb.RangeResponse(), 1: None, 2: pb.RangeResponse()}
    assert client.counts.failures["Range"] == 1
    client.ask(RANGE, [(READABLE, lambda answer: answers.setdefault("later", answer))], 1e6)
    await until(lambda: "later" in answers)
    assert answers["later"] == pb.RangeResponse()


async def test_what_cannot_be_read_fails_its_call_alone(client):
    with pytest.raises(StoreError, match="cannot be read"):
        await client.call(RANGE, UNREADABLE)
    assert await client.call(RANGE, READABLE) == pb.RangeResponse()
