"""The few messages of etcd's API that a run needs, as protobuf bytes (etcd's api/etcdserverpb/rpc.proto). Pure."""

from collections.abc import Iterable, Iterator

PUT = "/etcdserverpb.KV/Put"
RANGE = "/etcdserverpb.KV/Range"
DELETE_RANGE = "/etcdserverpb.KV/DeleteRange"
TXN = "/etcdserverpb.KV/Txn"
GRANT = "/etcdserverpb.Lease/LeaseGrant"
WATCH = "/etcdserverpb.Watch/Watch"

# Wire types and field numbers
VARINT, BYTES = 0, 2
RESPONSE_EVENTS = 11
GRANT_ID = 2


def encode_varint(value: int) -> bytes:
    """Write a number as protobuf does, seven bits a byte."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_bytes(field: int, value: bytes) -> bytes:
    """Write a field of bytes, a string or a message."""
    return encode_varint(field << 3 | BYTES) + encode_varint(len(value)) + value


def encode_number(field: int, value: int) -> bytes:
    """Write a field of a number that is not negative."""
    return encode_varint(field << 3 | VARINT) + encode_varint(value)


def decode_fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field; the API has no fields of fixed width. Raises ValueError."""
    position = 0
    while position < len(message):
        tag, position = _decode_varint(message, position)
        number, position = _decode_varint(message, position)
        if tag & 7 == BYTES:
            yield tag >> 3, message[position : position + number]
            position += number
        elif tag & 7 == VARINT:
            yield tag >> 3, number
        else:
            raise ValueError(f"field {tag >> 3} has wire type {tag & 7}")


def _decode_varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return value, position


def encode_put(key: str, value: str, etcd_lease: int = 0) -> bytes:
    """Write a PutRequest; lease 0 is none."""
    put = encode_bytes(1, key.encode()) + encode_bytes(2, value.encode())
    return put + encode_number(3, etcd_lease) if etcd_lease else put


def encode_prefix(prefix: str) -> bytes:
    """Write key and range_end of everything that begins with `prefix`: a RangeRequest or a DeleteRangeRequest."""
    return encode_bytes(1, prefix.encode()) + encode_bytes(2, prefix_end(prefix).encode())


def encode_key(key: str) -> bytes:
    """Write the same for one key."""
    return encode_bytes(1, key.encode())


def encode_puts(puts: Iterable[bytes]) -> bytes:
    """Write a TxnRequest without a condition that makes all these puts."""
    return b"".join(encode_bytes(2, encode_bytes(2, put)) for put in puts)


def encode_deletes(deletes: Iterable[bytes]) -> bytes:
    """Write a TxnRequest without a condition that makes all these deletes."""
    return b"".join(encode_bytes(2, encode_bytes(3, delete)) for delete in deletes)


def encode_grant(seconds: int) -> bytes:
    """Write a LeaseGrantRequest."""
    return encode_number(1, seconds)


def encode_watch(prefix: str) -> bytes:
    """Write a WatchRequest that creates a watch of everything that begins with `prefix`, from now on."""
    return encode_bytes(1, encode_prefix(prefix))


def decode_number(message: bytes, field: int) -> int:
    """Return a field's number, 0 if it is not there."""
    for number, value in decode_fields(message):
        if number == field and isinstance(value, int):
            return value
    return 0


def count_field(message: bytes, field: int) -> int:
    """Return how often a repeated field is there."""
    return sum(number == field for number, _ in decode_fields(message))


def prefix_end(prefix: str) -> str:
    """Return the first key after all that begin with `prefix` (etcd's API, range_end)."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
