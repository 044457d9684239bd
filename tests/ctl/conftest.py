"""The etcd that the store's tests share, for flannelctl's as well."""

from tests.store.conftest import shared_etcd

__all__ = ["shared_etcd"]
