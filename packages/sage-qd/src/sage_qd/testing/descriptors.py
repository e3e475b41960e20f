"""What every descriptor does, whatever its kind, told as tests."""

# ruff: noqa: D102  (the name of a test is its documentation)

import copy
import json
import pickle
import uuid
from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Any

import pytest

from sage_qd.descriptors.base import BaseQueueDescriptor, resolve_descriptor
from sage_qd.errors import (
    DescriptorError,
    DescriptorVersionError,
    InvalidQueueNameError,
    NotShareableError,
    QueueNotFoundError,
    StaleDescriptorError,
    UnknownQueueTypeError,
)

__all__ = ["DescriptorContract"]


class DescriptorContract(ABC):
    """The contract of :class:`~sage_qd.BaseQueueDescriptor`; subclass it and say how to make a descriptor."""

    @abstractmethod
    def make_descriptor(self, **settings: Any) -> BaseQueueDescriptor:
        """
        Return a descriptor of the kind under test.

        Args:
            **settings: ``queue_id``, and ``maxsize`` or ``max_items``, as the tests need them.
        """

    @pytest.fixture
    def descriptor(self) -> BaseQueueDescriptor:
        """A descriptor with a name of its own, not opened."""
        return self.make_descriptor(queue_id=f"contract-{uuid.uuid4().hex}", maxsize=5)

    @staticmethod
    def document(descriptor: BaseQueueDescriptor) -> dict[str, Any]:
        """The document of a descriptor, for a test to spoil."""
        return json.loads(descriptor.to_json(for_this_process=True))  # type: ignore[no-any-return]

    @staticmethod
    def read(document: Any) -> BaseQueueDescriptor:
        """Read a document the whole way from its text."""
        return BaseQueueDescriptor.from_json(json.dumps(document))

    # -- A value ------------------------------------------------------------------------------------------------------

    def test_equal_settings_are_equal_descriptors(self) -> None:
        one, other = (self.make_descriptor(queue_id="same", maxsize=3) for _ in range(2))

        assert one == other
        assert hash(one) == hash(other)
        assert {one, other} == {one}

    def test_another_name_or_setting_is_another_descriptor(self) -> None:
        one = self.make_descriptor(queue_id="same", maxsize=3)

        assert one != self.make_descriptor(queue_id="other", maxsize=3)
        assert one != self.make_descriptor(queue_id="same", maxsize=4)
        assert one != "same"

    def test_a_descriptor_cannot_be_changed(self, descriptor: BaseQueueDescriptor) -> None:
        with pytest.raises(AttributeError, match="cannot be changed"):
            descriptor.queue_id = "other"
        with pytest.raises(AttributeError, match="cannot be changed"):
            del descriptor.queue_id

    def test_changing_its_metadata_changes_nothing(self, descriptor: BaseQueueDescriptor) -> None:
        descriptor.metadata["maxsize"] = 17
        descriptor.to_dict()["metadata"]["maxsize"] = 17

        assert descriptor.metadata["maxsize"] == 5

    def test_a_name_is_made_up_when_there_is_none(self) -> None:
        one, other = self.make_descriptor(), self.make_descriptor()

        assert one.queue_id.startswith(f"{one.queue_type}_")
        assert one.queue_id != other.queue_id

    @pytest.mark.parametrize("queue_id", ["", "\ud800", "x" * 1025])
    def test_impossible_names_are_refused(self, queue_id: str) -> None:
        with pytest.raises(InvalidQueueNameError):
            self.make_descriptor(queue_id=queue_id)

    @pytest.mark.parametrize("settings", [{"queue_id": 7}, {"maxsize": True}, {"maxsize": 1.5}, {"maxsize": "3"}])
    def test_settings_of_a_wrong_type_are_type_errors(self, settings: dict[str, Any]) -> None:
        with pytest.raises(TypeError):
            self.make_descriptor(**settings)

    def test_settings_beyond_their_limit_are_value_errors(self) -> None:
        with pytest.raises(ValueError, match="maxsize"):
            self.make_descriptor(maxsize=2**63)

    def test_unknown_settings_are_type_errors(self) -> None:
        with pytest.raises(TypeError, match="maxsice"):
            self.make_descriptor(maxsice=3)

    def test_negative_maxsize_means_no_bound(self) -> None:
        assert self.make_descriptor(queue_id="q", maxsize=-7) == self.make_descriptor(queue_id="q", maxsize=0)

    def test_max_items_is_another_spelling_of_maxsize(self) -> None:
        assert self.make_descriptor(queue_id="q", max_items=3) == self.make_descriptor(queue_id="q", maxsize=3)
        assert self.make_descriptor(queue_id="q", max_items=-7) == self.make_descriptor(queue_id="q", maxsize=0)
        with pytest.raises(TypeError, match="the same"):
            self.make_descriptor(maxsize=3, max_items=3)

    def test_copies_are_the_same_value(self, descriptor: BaseQueueDescriptor) -> None:
        assert copy.copy(descriptor) == descriptor
        assert copy.deepcopy(descriptor) == descriptor

    def test_repr_says_name_and_whether_it_is_open(self, descriptor: BaseQueueDescriptor) -> None:
        before = repr(descriptor)
        descriptor.open()
        after = repr(descriptor)
        descriptor.close()

        assert descriptor.queue_id in before
        assert ("lazy" in before, "open" in after) == (True, True)

    # -- Opening ------------------------------------------------------------------------------------------------------

    def test_open_returns_the_same_queue_until_it_is_closed(self, descriptor: BaseQueueDescriptor) -> None:
        first = descriptor.open()

        assert descriptor.open() is first
        assert descriptor.get_queue() is first
        assert descriptor._ensure_queue_initialized() is first
        assert descriptor.queue_instance is first
        first.close()
        assert descriptor.queue_instance is None
        second = descriptor.open()
        assert second is not first
        descriptor.close()

    def test_opening_does_not_change_the_value(self, descriptor: BaseQueueDescriptor) -> None:
        before = descriptor.to_dict()
        assert not descriptor.is_initialized()

        descriptor.open()

        assert descriptor.is_initialized()
        assert descriptor.to_dict() == before
        descriptor.close()

    def test_a_descriptor_works_as_the_queue(self, descriptor: BaseQueueDescriptor) -> None:
        descriptor.put("lazy")
        descriptor.put_nowait("open")
        descriptor.put_many(["a", "b"])

        assert (descriptor.qsize(), descriptor.full(), descriptor.empty()) == (4, False, False)
        assert [descriptor.get(), descriptor.get_nowait(), descriptor.get_many(5)] == ["lazy", "open", ["a", "b"]]
        descriptor.close()

    def test_equal_descriptors_open_one_queue(self, descriptor: BaseQueueDescriptor) -> None:
        other = self.make_descriptor(queue_id=descriptor.queue_id, maxsize=5)
        descriptor.put("shared")

        assert other.get(timeout=0) == "shared"
        other.close()
        descriptor.close()

    def test_attach_needs_an_existing_queue(self, descriptor: BaseQueueDescriptor) -> None:
        with pytest.raises(QueueNotFoundError):
            descriptor.attach()
        with pytest.raises(QueueNotFoundError):
            descriptor.open(create=False)

    def test_the_queue_knows_the_descriptor_of_its_instance(self, descriptor: BaseQueueDescriptor) -> None:
        queue = descriptor.open()
        bound: Any = queue.descriptor

        assert bound == descriptor
        assert bound.instance is not None
        assert descriptor.instance is None
        again = bound.attach()
        queue.put("x")
        assert again.get(timeout=0) == "x"
        again.close()
        queue.close()

    def test_a_bound_descriptor_refuses_a_later_queue_of_the_name(self, descriptor: BaseQueueDescriptor) -> None:
        queue = descriptor.open()
        bound: Any = queue.descriptor
        queue.close()
        with pytest.raises(QueueNotFoundError):
            bound.open()
        later = descriptor.open()

        with pytest.raises(StaleDescriptorError):
            bound.open()

        later.close()

    def test_clear_cache_forgets_and_trim_closes(self, descriptor: BaseQueueDescriptor) -> None:
        queue = descriptor.open()
        descriptor.clear_cache()
        assert (descriptor.is_initialized(), queue.closed) == (False, False)
        other = descriptor.open()
        descriptor.trim()

        assert (descriptor.is_initialized(), other.closed, queue.closed) == (False, True, False)
        queue.close()

    def test_derive_means_another_queue_with_the_same_settings(self, descriptor: BaseQueueDescriptor) -> None:
        derived = descriptor.derive(f"{descriptor.queue_id}-derived")
        descriptor.put("mine")

        assert derived.metadata == descriptor.metadata
        assert derived.empty()
        descriptor.close()
        derived.close()

    def test_clone_of_an_open_descriptor_shares_its_queue(self, descriptor: BaseQueueDescriptor) -> None:
        descriptor.open()

        assert descriptor.clone("renamed").open() is descriptor.open()
        assert descriptor.clone().open() is descriptor.open()
        descriptor.close()

    def test_clone_of_a_lazy_descriptor_keeps_the_settings(self, descriptor: BaseQueueDescriptor) -> None:
        assert descriptor.clone() == descriptor
        assert descriptor.clone("renamed").metadata == descriptor.metadata
        assert not descriptor.clone("renamed").is_initialized()

    # -- What the kind can do -----------------------------------------------------------------------------------------

    def test_the_kind_declares_what_its_queues_can_do(self, descriptor: BaseQueueDescriptor) -> None:
        declared = type(descriptor).capabilities
        if declared is None:
            pytest.skip("this kind declares nothing, so it is never chosen")
        queue = descriptor.open()

        for name, value in asdict(declared).items():
            if value is not False:  # a queue in a good place may be able to do more than the kind promises
                assert getattr(queue.capabilities, name) == value
        descriptor.close()

    def test_the_kind_explains_itself(self, descriptor: BaseQueueDescriptor) -> None:
        explanation = descriptor.explain()

        assert explanation.queue_type == descriptor.queue_type
        assert descriptor.queue_id in str(explanation)
        assert json.loads(explanation.to_json())["version"] == 1
        assert not descriptor.is_initialized()

    # -- Data ---------------------------------------------------------------------------------------------------------

    def test_documents_have_the_promised_members(self, descriptor: BaseQueueDescriptor) -> None:
        document = descriptor.to_dict()

        assert set(document) == {
            "queue_id",
            "queue_type",
            "class_name",
            "metadata",
            "can_serialize",
            "created_timestamp",
            "version",
        }
        assert resolve_descriptor(document) == descriptor
        assert type(descriptor).from_dict(document).created_timestamp == descriptor.created_timestamp

    def test_json_reads_back_equal_and_is_canonical(self, descriptor: BaseQueueDescriptor) -> None:
        text = descriptor.to_json(for_this_process=True)
        again = BaseQueueDescriptor.from_json(text)

        assert again == descriptor
        assert type(again) is type(descriptor)
        assert again.to_json(for_this_process=True) == text
        assert BaseQueueDescriptor.from_json(text.encode()) == descriptor

    def test_json_is_refused_for_what_cannot_leave_the_process(self, descriptor: BaseQueueDescriptor) -> None:
        if descriptor.can_serialize:
            assert json.loads(descriptor.to_json())["queue_id"] == descriptor.queue_id
        else:
            with pytest.raises(NotShareableError):
                descriptor.to_json()

    def test_pickle_reads_back_equal_or_is_refused(self, descriptor: BaseQueueDescriptor) -> None:
        if not descriptor.can_serialize:
            with pytest.raises(NotShareableError):
                pickle.dumps(descriptor)
            return
        again = pickle.loads(pickle.dumps(descriptor))

        assert again == descriptor
        assert again.to_json() == descriptor.to_json()

    def test_unpickling_only_attaches(self, descriptor: BaseQueueDescriptor) -> None:
        if not descriptor.can_serialize:
            pytest.skip("this kind cannot be pickled")
        descriptor.open()
        again = pickle.loads(pickle.dumps(descriptor))
        descriptor.put("x")
        assert again.get(timeout=0) == "x"
        again.close()
        descriptor.close()

        with pytest.raises(QueueNotFoundError):
            again.open()

        again.open(create=True).close()

    def test_uri_reads_back_equal(self, descriptor: BaseQueueDescriptor) -> None:
        if descriptor.uri_scheme is None:
            with pytest.raises(NotShareableError):
                descriptor.to_uri()
            return

        assert BaseQueueDescriptor.from_uri(descriptor.to_uri()) == descriptor
        assert descriptor.to_uri().startswith(f"{descriptor.uri_scheme}://")

    def test_own_members_are_kept(self, descriptor: BaseQueueDescriptor) -> None:
        document = self.document(descriptor) | {"x-team": {"name": "队", "size": 3}}

        again = self.read(document)

        assert again.extensions == {"x-team": {"name": "队", "size": 3}}
        assert self.document(again) == document

    def test_signed_documents_are_checked(self, descriptor: BaseQueueDescriptor) -> None:
        text = descriptor.to_json(key=b"secret", for_this_process=True)

        assert BaseQueueDescriptor.from_json(text, key=b"secret") == descriptor
        for bad in (text.replace("contract", "Contract"), descriptor.to_json(for_this_process=True)):
            with pytest.raises(DescriptorError) as caught:
                BaseQueueDescriptor.from_json(bad, key=b"secret")
            assert caught.value.pointer == "/hmac"
        with pytest.raises(DescriptorError):
            BaseQueueDescriptor.from_json(text, key=b"other")

    def test_a_missing_member_is_named(self, descriptor: BaseQueueDescriptor) -> None:
        for name in self.document(descriptor):
            document = self.document(descriptor)
            del document[name]

            with pytest.raises(DescriptorError) as caught:
                self.read(document)

            assert caught.value.pointer == f"/{name}"

    def test_a_missing_setting_is_named(self, descriptor: BaseQueueDescriptor) -> None:
        for name in descriptor.metadata:
            document = self.document(descriptor)
            del document["metadata"][name]

            with pytest.raises(DescriptorError) as caught:
                self.read(document)

            assert caught.value.pointer == f"/metadata/{name}"

    def test_an_unknown_member_or_setting_is_named(self, descriptor: BaseQueueDescriptor) -> None:
        with pytest.raises(DescriptorError) as caught:
            self.read(self.document(descriptor) | {"colour": "red"})
        assert caught.value.pointer == "/colour"

        document = self.document(descriptor)
        document["metadata"]["a/b~c"] = 1
        with pytest.raises(DescriptorError) as caught:
            self.read(document)
        assert caught.value.pointer == "/metadata/a~1b~0c"

    def test_wrong_types_are_named(self, descriptor: BaseQueueDescriptor) -> None:
        wrong: dict[str, list[Any]] = {
            "version": ["1", 1.0, True, None],
            "queue_id": [1, None, [], "", "x" * 1025],
            "queue_type": [1, None, {}],
            "class_name": [1, "os.system", ""],
            "metadata": [1, None, [], "{}"],
            "can_serialize": [1, "true", None, not descriptor.can_serialize],
            "created_timestamp": ["now", None, True, -1, 10**15 * 9 + 10**15],
            "instance": [1, None, "", "A" * 32, "0" * 31],
        }
        for name, values in wrong.items():
            for value in values:
                with pytest.raises(DescriptorError) as caught:
                    self.read(self.document(descriptor) | {name: value})
                assert caught.value.pointer == f"/{name}", value
        for value in ("5", 5.0, True, -1, 2**40, [], {}):
            document = self.document(descriptor)
            document["metadata"]["maxsize"] = value
            with pytest.raises(DescriptorError) as caught:
                self.read(document)
            assert caught.value.pointer == "/metadata/maxsize", value

    def test_unknown_version_and_type_are_named(self, descriptor: BaseQueueDescriptor) -> None:
        with pytest.raises(DescriptorVersionError):
            self.read(self.document(descriptor) | {"version": 99})
        with pytest.raises(UnknownQueueTypeError):
            self.read(self.document(descriptor) | {"queue_type": "carrier_pigeon"})

    def test_documents_without_a_version_are_read(self, descriptor: BaseQueueDescriptor) -> None:
        document = self.document(descriptor)
        del document["version"]
        for name in ("class_name", "can_serialize", "created_timestamp"):
            assert resolve_descriptor({key: document[key] for key in document if key != name}) == descriptor
        assert resolve_descriptor({"queue_id": "q", "queue_type": descriptor.queue_type}).queue_id == "q"

    @pytest.mark.parametrize("document", [None, [], "text", 7])
    def test_what_is_no_document_is_a_type_error(self, document: Any) -> None:
        with pytest.raises(TypeError):
            resolve_descriptor(document)
