"""Which verb does what, for a process of one call and for the threads of a daemon alike.

A daemon executes no other programs: a call that needs one is left to the plugin's own process, which has the
environment and the folders that they expect.
"""

from __future__ import annotations

from flanneld_py.core.named_tuple import TYPE_CHECKING, NamedTuple
from flanneld_py.core.subnet_env import SubnetEnv, parse_subnet_env
from flanneld_py.kernel.netns import is_own_namespace, open_namespace
from flanneld_py.pods import errors, versions
from flanneld_py.pods.errors import CniError, ElsewhereError
from flanneld_py.pods.files import read_file
from flanneld_py.pods.json_text import parse_object
from flanneld_py.pods.network_conf import complete_delegate, is_own, named_paths, parse_network_conf
from flanneld_py.pods.result import encode_result
from flanneld_py.pods.scratch import read_scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flanneld_py.kernel.netlink_socket import NetlinkSocket
    from flanneld_py.pods.attach import Announce
    from flanneld_py.pods.detach import Later
    from flanneld_py.pods.fields import Fields
    from flanneld_py.pods.invocation import Invocation
    from flanneld_py.pods.network_conf import NetworkConf


class Daemon(NamedTuple):
    """What a daemon does otherwise than a process of one call.

    `require_paths` raises ElsewhereError where the caller has other folders at these paths than the daemon; `later`
    takes the device that a DEL disconnected, deletes it, and then has the DEL completed; `announce` takes the end of a
    container that an ADD connected, and has others hear of it later; `outages` says what keeps other nodes from
    containers here.
    """

    require_paths: Callable[[Sequence[str]], None]
    later: Later
    announce: Announce
    outages: Callable[[], Sequence[str]]


class Server(NamedTuple):
    """Who serves a call: `sock` speaks to the host's namespace; `daemon` is None in a process of one call."""

    sock: NetlinkSocket
    daemon: Daemon | None = None


def open_container(call: Invocation) -> int | None:
    """Open the container's namespace and return its descriptor; None for a DEL after it has gone.

    Raises CniError with code 8 if there is none, or if it is the plugin's own and that was not asked for.
    """
    if not call.netns:
        return None
    try:
        namespace = open_namespace(call.netns)
    except OSError as error:
        if call.verb == "DEL":
            return None
        raise CniError(errors.INVALID_NAMESPACE, f"CNI_NETNS is not usable: {error.strerror}") from error
    if is_own_namespace(namespace) and not call.netns_override:
        import os

        os.close(namespace)
        raise CniError(
            errors.INVALID_NAMESPACE,
            "CNI_NETNS is the network namespace of the plugin itself",
            "CNI_NETNS_OVERRIDE=1 allows it",
        )
    return namespace


def perform(call: Invocation, namespace: int | None, server: Server) -> Fields | None:
    """Carry a call out. Raises CniError, KernelError, OSError; for a daemon also ElsewhereError."""
    if call.verb == "DEL" and not call.config.strip():
        return None
    fields = parse_object(call.config, "the network configuration")
    network = parse_network_conf(fields)
    versions.require_verb(call.verb, network.version)
    if server.daemon is not None:
        server.daemon.require_paths(named_paths(network))
    match call.verb:
        case "ADD":
            return _add(call, network, namespace, server)
        case "DEL":
            _delete(call, network, namespace, server)
        case "CHECK":
            _check(call, network, namespace, server)
        case "GC":
            _require_own_process(server)
            from flanneld_py.pods.foreign import pass_on
            from flanneld_py.pods.garbage import collect, list_attachments, parse_attachments

            attachments = parse_attachments(fields)
            if attachments is not None:  # cnitool sends no list: then nothing is known to be garbage
                collect(network, attachments, server.sock)
                if not is_own(network.raw_delegate):
                    pass_on(call, complete_delegate(network, _read_env(network)), list_attachments(fields))
        case "STATUS":
            _report_status(call, network, server)
        case _:
            raise AssertionError(f"unreachable: {call.verb} is none of the verbs that an invocation may have")
    return None


def _require_own_process(server: Server) -> None:
    if server.daemon is not None:
        raise ElsewhereError


def _add(call: Invocation, network: NetworkConf, namespace: int | None, server: Server) -> Fields:
    delegate = complete_delegate(network, _read_env(network))
    if delegate.get("ipMasq") is True or delegate.get("enabledad") is True:  # which takes seconds
        _require_own_process(server)
    if not is_own(delegate):
        _require_own_process(server)
        from flanneld_py.pods.foreign import add_by_other

        return add_by_other(call, network, delegate)
    from flanneld_py.pods.attach import announce_at_once, attach

    announce = announce_at_once if server.daemon is None else server.daemon.announce
    result = attach(call, network, delegate, _required(namespace), server.sock, announce=announce)
    return encode_result(result, network.version)


def _delete(call: Invocation, network: NetworkConf, namespace: int | None, server: Server) -> None:
    delegate = read_scratch(network.data_dir, call.container_id)
    if delegate is not None and delegate.get("name") != network.name and is_own(network.raw_delegate):
        # The container is in another network as well, and the ADD of that one came later.
        delegate = delegate if is_own(delegate) else None
    if delegate is not None and not is_own(delegate):
        _require_own_process(server)
        from flanneld_py.pods.foreign import delete_by_other

        delete_by_other(call, network, delegate)
        return
    from flanneld_py.pods.detach import detach, plan_departure

    departure = plan_departure(call, network, delegate)
    if server.daemon is not None:
        server.daemon.require_paths([store.folder for store in departure.stores])
        if departure.ip_masq:
            raise ElsewhereError
    detach(departure, namespace, server.sock, None if server.daemon is None else server.daemon.later)


def _check(call: Invocation, network: NetworkConf, namespace: int | None, server: Server) -> None:
    delegate = complete_delegate(network, _read_env(network))
    if not is_own(delegate):
        _require_own_process(server)
        from flanneld_py.pods.foreign import pass_on

        pass_on(call, delegate, {} if network.previous is None else {"prevResult": network.previous})
        return
    from flanneld_py.pods.check import check

    check(call, network, delegate, _required(namespace), server.sock)


def _report_status(call: Invocation, network: NetworkConf, server: Server) -> None:
    outages = () if server.daemon is None else server.daemon.outages()
    if outages:
        raise CniError(errors.LIMITED_CONNECTIVITY, "other nodes are cut off from this one", "; ".join(outages))
    try:
        delegate = complete_delegate(network, _read_env(network))
    except CniError as error:
        code = errors.PLUGIN_NOT_AVAILABLE if error.code == errors.TRY_AGAIN_LATER else error.code
        raise CniError(code, error.message, error.details) from error
    if not is_own(delegate):
        _require_own_process(server)
        from flanneld_py.pods.foreign import pass_on

        pass_on(call, delegate, {})
        return
    from flanneld_py.pods.bridge_conf import parse_bridge_conf
    from flanneld_py.pods.host_local import AddressStore

    conf = parse_bridge_conf(delegate, call.args)
    with AddressStore(conf.ipam.store) as addresses:
        exhausted = [subnet for subnet in conf.ipam.subnets if addresses.is_exhausted(subnet)]
    if not exhausted:
        return
    from flanneld_py.kernel.link import read_link
    from flanneld_py.pods.reclaim import find_stale

    if not find_stale(server.sock, conf.ipam, read_link(server.sock, conf.bridge)):
        raise CniError(errors.PLUGIN_NOT_AVAILABLE, f"no address is left in {exhausted[0]}")


def _required(namespace: int | None) -> int:
    if namespace is None:
        raise CniError(errors.INVALID_NAMESPACE, "CNI_NETNS is missing")
    return namespace


def _read_env(network: NetworkConf) -> SubnetEnv:
    content = read_file(network.subnet_file)
    if content is None:
        raise CniError(
            errors.TRY_AGAIN_LATER,
            f"{network.subnet_file} is not there yet",
            "flanneld writes it as soon as it has its lease: is it running?",
        )
    try:
        return parse_subnet_env(content.decode())
    except ValueError as error:
        raise CniError(errors.TRY_AGAIN_LATER, f"{network.subnet_file} is not complete", str(error)) from error
