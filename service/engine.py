"""The engine: what the service can be asked, whatever asks it. It knows no web framework.

A question takes the state of its moment and answers from that alone. Methods with a ticket block, and run in the lanes
that the engine keeps.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Self

import faiss
import numpy as np
from cachetools import LRUCache
from threadpoolctl import threadpool_limits

from data.catalog import CatalogItem
from data.images import ImageError, read_bytes
from indexer.edits import EncoderChangedError, delete_items, put_item, relabel_item
from indexer.failures import read_failures
from indexer.rows import Row, content_hash_of
from indexer.runtimes import cpu_count
from indexer.searcher import QueryError
from indexer.snapshot import GalleryLockedError
from service import answers
from service.classification import Classifier
from service.comparators import encoders_of
from service.conversion import (
    encoder_name,
    group_answers,
    head_answers,
    item_answer,
    neighbour_answer,
    photo_answer,
    receipt_of,
)
from service.decoding import Decoders
from service.encoders import load_serving_encoder, load_serving_patch_encoder
from service.explain import Explainer, check_question
from service.explanation import label_answer, match_answer
from service.jobs import JobQueue
from service.lanes import Lanes, Ticket
from service.networks import Networks
from service.redaction import names_of_places, redacted
from service.saliency import SHOWN, Subject
from service.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from data.catalog import Box, Labels
    from indexer.encoders import Encoder, EncoderCard
    from indexer.filters import Where
    from service.explain import ExplainOptions
    from service.questions import ClassifyQuestion, ExplainQuestion, NeighboursQuestion, NewItem
    from service.serving import Serving
    from service.settings import Settings

# Photos of catalogs come a page at a time; heat maps take a core for a while, and edits wait for each other anyway.
_IMAGE_PLACES, _EXPLAIN_PLACES, _EDIT_PLACES = 256, 4, 32
# Photos that an explanation encodes together.
_SHARE = 2
# Seconds that an edit waits for a writer of another process.
_WRITER_S = 1.0


class ItemNotFoundError(LookupError):
    """The gallery has no such item.

    Args:
        item_id: Which.
    """

    def __init__(self, item_id: str) -> None:
        super().__init__(f"The gallery has no item '{item_id}'.")
        self.item_id = item_id


class QuestionError(ValueError):
    """A question that contradicts itself, or asks for more than may be asked at once."""


class Engine:
    """A gallery that is served: questions, edits and jobs.

    Args:
        settings: Of the service.
        load: Loads the encoder of a card.

    Raises:
        StoreError, EncoderError: The gallery cannot be opened, or its encoder not be loaded.
    """

    def __init__(self, settings: Settings, load: Callable[[EncoderCard], Encoder] = load_serving_encoder) -> None:
        self.settings = settings
        self._places = names_of_places(settings.gallery, settings.catalogs)
        # A request runs on one core: two that each use all cores only get in each other's way.
        self._limits = threadpool_limits(1)
        # They start while the gallery is opened. One more than cores keeps catalog photos from waiting for questions.
        self.decoders = Decoders(
            cpu_count() + 1,
            seconds=settings.decode_seconds,
            memory_mb=settings.decode_memory_mb,
            photos=settings.decode_photos,
        )
        try:
            self.state = State(settings, load)
        except BaseException:
            self.decoders.close()
            raise
        self.jobs = JobQueue(settings.gallery, settings.catalogs, settings.encoders, on_done=self._take_what_is_new)
        # A page of neighbours is asked for again and again.
        self._images: LRUCache[tuple[int, int], bytes] = LRUCache(settings.image_cache_mb * 2**20, getsizeof=len)
        self._images_lock = threading.Lock()
        # One core for explanations leaves the others to questions.
        self._networks = Networks(load_serving_patch_encoder, threads=1)
        count = settings.lanes or self.state.serving.encoder.workers
        self.search_lanes = Lanes("questions", count, settings.places, _on_one_core)
        self.image_lanes = Lanes("images", 1, _IMAGE_PLACES)
        self.explain_lanes = Lanes("explanations", 1, _EXPLAIN_PLACES)
        self.edit_lanes = Lanes("edits", 1, _EDIT_PLACES)
        self.lanes = (self.search_lanes, self.image_lanes, self.explain_lanes, self.edit_lanes)

    def close(self) -> None:
        """Answers what was asked, and ends every thread and process."""
        for lanes in self.lanes:
            lanes.close()
        self.jobs.close()
        self.state.close()
        self.decoders.close()
        self._limits.restore_original_limits()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def neighbours(self, question: NeighboursQuestion, ticket: Ticket) -> answers.Neighbours:
        """The items nearest to a photo or an item.

        Raises:
            QuestionError, ImageError, ItemNotFoundError, FilterError, QueryError: What is asked cannot be answered.
        """
        serving = self.state.serving
        embedding = self._embed_one(serving, question.photo, question.item_id, question.box, ticket)
        with ticket.stage("search"):
            found = serving.gallery.neighbours(
                embedding,
                question.k,
                where=question.where,
                max_distance=question.max_distance,
                group_by_product=question.group_by_product,
                exclude=question.item_id,
            )
            self.state.sample(embedding)
        return answers.Neighbours([neighbour_answer(one) for one in found], receipt_of(serving, ticket))

    def classify(self, question: ClassifyQuestion, ticket: Ticket) -> answers.Classification:
        """Labels for photos, with what speaks for them; a photo that cannot be read has an error of its own.

        Raises:
            QuestionError, ItemNotFoundError, HeadError, StoredHeadError: What is asked cannot be answered.
            ImageError: No photo could be read.
        """
        serving = self.state.serving
        with ticket.stage("predict"):
            heads = serving.heads.choose(question.targets, question.head)
            classifier = Classifier(serving.gallery, heads, question.options)
            cards = [head.card for head in heads]
            encoders = [serving.encoder, *encoders_of(cards, serving.gallery.card, serving.encoders.get)]
        embeddings, errors = self._embed_all(serving, question, encoders, ticket)
        with ticket.stage("predict"):
            # (B photos, E encoders) to a matrix each
            own, *others = [np.stack(of_encoder) for of_encoder in zip(*embeddings, strict=True)]
            fingerprints = [encoder.card.fingerprint for encoder in encoders[1:]]
            found = iter(classifier.ask(own, dict(zip(fingerprints, others, strict=True))))
        names = [name for name, _ in question.photos] or [question.item_id or ""]
        photos = [
            answers.ClassifiedPhoto(name, error, [], []) if error else photo_answer(name, *next(found))
            for name, error in zip(names, errors, strict=True)
        ]
        return answers.Classification(photos, receipt_of(serving, ticket, heads))

    def explain(self, question: ExplainQuestion, ticket: Ticket) -> answers.Explanation:
        """What a prediction, or a match, hangs on.

        Raises:
            ExplanationError: No such method or label, or the head or the encoder cannot be explained so.
            QuestionError, ImageError, ItemNotFoundError, HeadError, StoredHeadError: As for the other questions.
        """
        check_question(
            question.options.method,
            question.target,
            question.match_item_id,
            label=question.label,
            head=question.head,
        )
        if question.item_id is not None and question.box is not None:
            raise QuestionError("A box is of a photo that is sent; an item has its own.")
        serving = self.state.serving
        if question.match_item_id is not None:
            return self._explain_match(serving, question, question.match_item_id, ticket)
        assert question.target is not None
        fitted = serving.heads.choose([question.target], question.head)[0]
        encoder = serving.encoder_of(fitted.card)
        subject = self._subject(serving, question.photo, question.item_id, question.box, encoder, ticket)
        with ticket.stage("explain"):
            explainer = self._explainer(encoder, question.options, ticket)
            answer = label_answer(
                explainer.label(subject, fitted, question.label),
                fitted,
                serving.gallery,
                receipt=receipt_of(serving, ticket, [fitted]),
                with_map=question.with_map,
            )
        # Once more, with the time that this stage took.
        return replace(answer, receipt=receipt_of(serving, ticket, [fitted]))

    def _explain_match(
        self, serving: Serving, question: ExplainQuestion, item_id: str, ticket: Ticket
    ) -> answers.Explanation:
        """What the similarity of a photo and an item hangs on."""
        encoder = serving.encoder
        query = self._subject(serving, question.photo, question.item_id, question.box, encoder, ticket)
        item = self._subject(serving, None, item_id, None, encoder, ticket)
        with ticket.stage("explain"):
            explainer = self._explainer(encoder, question.options, ticket)
            explained = explainer.match(query, item, serving.gallery)
            answer = match_answer(
                explained,
                serving.gallery.item(item_id),
                receipt=receipt_of(serving, ticket),
                with_map=question.with_map,
            )
        return replace(answer, receipt=receipt_of(serving, ticket))

    def _explainer(self, encoder: Encoder, options: ExplainOptions, ticket: Ticket) -> Explainer:
        def encode(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            # An encoder that takes one batch at a time would keep questions waiting for all of these.
            parts = [pixels[start : start + _SHARE] for start in range(0, len(pixels), _SHARE)]
            return np.concatenate([encoder.encode(part) for part in parts])

        return Explainer(encoder, self._networks, options, encode=encode, check=ticket.check)

    def _subject(
        self,
        serving: Serving,
        photo: bytes | None,
        item_id: str | None,
        box: Box | None,
        encoder: Encoder,
        ticket: Ticket,
    ) -> Subject:
        """A photo that was sent, or an item's, as an encoder and as people see it."""
        content = self._photo(serving, photo, item_id)
        if item_id is not None:
            box = serving.gallery.item(item_id).box
        pixels = self._decode(content, box, encoder, ticket)
        with ticket.stage("decode"):
            return Subject(pixels, self.decoders.view(content, SHOWN), box)

    def _embed_one(
        self, serving: Serving, photo: bytes | None, item_id: str | None, box: Box | None, ticket: Ticket
    ) -> NDArray[np.float32]:
        """The embedding, (D,), of a photo, or the stored one of an item."""
        _check_one_of(photo is not None, item_id)
        if item_id is not None:
            return self._embed_item(serving, item_id, box, [serving.encoder], ticket)[0]
        assert photo is not None
        return self._embed_photo(photo, box, [serving.encoder], ticket)[0]

    def _embed_item(
        self, serving: Serving, item_id: str, box: Box | None, encoders: Sequence[Encoder], ticket: Ticket
    ) -> list[NDArray[np.float32]]:
        """An item's embedding, (D,), of each encoder: the gallery's, which comes first, is stored."""
        if box is not None:
            raise QuestionError("A box is of a photo that is sent; an item has been encoded already.")
        with ticket.stage("search"):
            stored = self._embedding_of(serving, item_id)
        if not (others := encoders[1:]):
            return [stored]
        photo = self._photo(serving, None, item_id)
        return [stored, *self._embed_photo(photo, serving.gallery.item(item_id).box, others, ticket)]

    def _embed_photo(
        self, photo: bytes, box: Box | None, encoders: Sequence[Encoder], ticket: Ticket
    ) -> list[NDArray[np.float32]]:
        """A photo's embedding, (D,), of each encoder; it is decoded once for all of one size."""
        pixels: dict[int, NDArray[np.uint8]] = {}
        embeddings = []
        for encoder in encoders:
            size = encoder.card.image_size
            if size not in pixels:
                pixels[size] = self._decode(photo, box, encoder, ticket)
            with ticket.stage("encode"):
                # (S, S, 3) to (1, S, S, 3)
                embeddings.append(encoder.encode(pixels[size][None])[0])
        return embeddings

    def _embed_all(
        self, serving: Serving, question: ClassifyQuestion, encoders: Sequence[Encoder], ticket: Ticket
    ) -> tuple[list[list[NDArray[np.float32]]], list[str | None]]:
        """Each encoder's embedding of the photos that could be read, and for each photo why it could not, or None."""
        _check_one_of(bool(question.photos), question.item_id)
        if len(question.photos) > self.settings.max_photos:
            raise QuestionError(
                f"A request has at most {self.settings.max_photos} photos; got {len(question.photos)}. Send several."
            )
        if question.item_id is not None:
            return [self._embed_item(serving, question.item_id, question.box, encoders, ticket)], [None]
        embeddings: list[list[NDArray[np.float32]]] = []
        errors: list[str | None] = []
        for _, photo in question.photos:
            try:
                embeddings.append(self._embed_photo(photo, question.box, encoders, ticket))
                errors.append(None)
            except ImageError as error:
                if len(question.photos) == 1:
                    raise
                errors.append(error.reason)
        if not embeddings:
            raise ImageError(f"None of the {len(errors)} photos could be read. The first: {errors[0]}")
        return embeddings, errors

    def _embedding_of(self, serving: Serving, item_id: str) -> NDArray[np.float32]:
        try:
            return serving.gallery.embedding_of(item_id)
        except QueryError as error:
            raise ItemNotFoundError(item_id) from error

    def _decode(self, photo: bytes, box: Box | None, encoder: Encoder, ticket: Ticket) -> NDArray[np.uint8]:
        with ticket.stage("decode"):
            return self.decoders.pixels(read_bytes(photo), encoder.card.image_size, box)

    def catalog(self) -> answers.Catalog:
        """What is in the gallery, and how fresh the answers are."""
        serving, error = self.state.serving, self.state.error
        gallery = serving.gallery
        targets = {target: dict(counts.most_common()) for target, counts in gallery.labels.counts().items()}
        return answers.Catalog(
            items=len(gallery),
            products=gallery.product_count,
            targets=targets,
            encoder=encoder_name(gallery.card),
            encoder_card=asdict(replace(gallery.card, name=encoder_name(gallery.card))),
            encoder_fingerprint=gallery.card.fingerprint,
            gallery_version=gallery.snapshot.version,
            variant=gallery.searcher.variant,
            unindexed_items=gallery.searcher.tail_rows,
            failures=len(read_failures(gallery.folder)),
            freshness_s=self.settings.freshness_s,
            error=None if error is None else redacted(str(error), self._places),
            heads=head_answers(serving.heads),
            sources=sorted(self.settings.catalogs),
            encoders=self.jobs.encoders,
            groups=group_answers(serving.heads, targets),
            has_projection=serving.projected.projection is not None,
        )

    def projection(
        self, limit: int, *, target: str | None = None, view: Box | None = None, where: Where | None = None
    ) -> answers.Projection:
        """The points of the gallery's map in a view, or so many of them that dense places are thinned.

        Raises:
            ProjectionNotFoundError: There is no map.
            FilterError: A target or label that the gallery does not have.
        """
        return self.state.serving.projected.view(limit, target=target, view=view, where=where)

    def items(self, limit: int, *, after: str | None = None, where: Where | None = None) -> answers.ItemPage:
        """Items in order of item_id.

        Raises:
            FilterError: A target or label that the gallery does not have.
        """
        gallery = self.state.serving.gallery
        page, total = gallery.page(limit + 1, after=after, where=where)
        return answers.ItemPage(
            items=[item_answer(one) for one in page[:limit]],
            total=total,
            next_after=page[limit - 1].item_id if len(page) > limit else None,
            gallery_version=gallery.snapshot.version,
        )

    def item(self, item_id: str) -> answers.Item:
        """One item.

        Raises:
            ItemNotFoundError: There is none.
        """
        gallery = self.state.serving.gallery
        try:
            return item_answer(gallery.item(item_id))
        except QueryError as error:
            raise ItemNotFoundError(item_id) from error

    def image(self, item_id: str, size: int, ticket: Ticket) -> bytes:
        """An item's photo as a JPEG, encoded anew, its longer side at most `size` pixels.

        Raises:
            ItemNotFoundError: There is no such item.
            ImageError: Its photo cannot be read any more.
        """
        serving = self.state.serving
        try:
            key = serving.gallery.vector_key(item_id), size
        except QueryError as error:
            raise ItemNotFoundError(item_id) from error
        with self._images_lock:
            kept = self._images.get(key)
        if kept is not None:
            return kept
        photo = self._photo(serving, None, item_id)
        with ticket.stage("decode"):
            image = self.decoders.jpeg(photo, size)
        # One that is larger than the cache is not kept.
        with self._images_lock, contextlib.suppress(ValueError):
            self._images[key] = image
        return image

    def _photo(self, serving: Serving, photo: bytes | None, item_id: str | None) -> bytes:
        """A photo that was sent, or an item's own."""
        _check_one_of(photo is not None, item_id)
        if photo is not None:
            return photo
        assert item_id is not None
        try:
            return read_bytes(serving.gallery.photo_of(item_id))
        except QueryError as error:
            raise ItemNotFoundError(item_id) from error
        except ImageError as error:
            # Without the path that it names.
            raise ImageError(f"The photo of item '{item_id}' cannot be read: {error.reason}") from error

    def put(self, new: NewItem, ticket: Ticket) -> answers.Edited:
        """Puts a photo and its labels into the gallery; every answer from now on has it.

        Raises:
            ImageError: The photo cannot be read.
            EditError: An unknown target, or a name that is empty, too long or not text.
            StoreError: Another writer, or no room on the disk.
        """
        item = CatalogItem(new.item_id, new.photo, new.product_id, dict(new.labels), new.box, new.split)
        while True:
            serving = self.state.serving
            embedding = self._embed_one(serving, new.photo, None, new.box, ticket)
            row = Row(item, content_hash_of(new.photo), len(new.photo), 0, embedding)
            try:
                with self._committing(ticket) as wait_s:
                    is_new = put_item(
                        self.settings.gallery, row, serving.gallery.card, new_targets=new.new_targets, wait_s=wait_s
                    )
                    return self._edited(item, is_new)
            except EncoderChangedError:
                self.state.advance()

    def relabel(self, item_id: str, labels: Labels, *, new_targets: bool, ticket: Ticket) -> answers.Edited:
        """Sets labels of an item by hand; an empty list takes those of a target away.

        Raises:
            ItemNotFoundError: There is no such item.
            EditError: An unknown target.
            StoreError: Another writer, or no room on the disk.
        """
        with self._committing(ticket) as wait_s:
            self._require(item_id)
            item = relabel_item(self.settings.gallery, item_id, labels, new_targets=new_targets, wait_s=wait_s)
            return self._edited(item, is_new=False)

    def delete(self, item_id: str, ticket: Ticket) -> None:
        """Deletes an item; no answer has it from now on.

        Raises:
            ItemNotFoundError: There is no such item.
            StoreError: Another writer, or no room on the disk.
        """
        with self._committing(ticket) as wait_s:
            self._require(item_id)
            delete_items(self.settings.gallery, [item_id], wait_s=wait_s)
            self.state.advance()

    @contextmanager
    def _committing(self, ticket: Ticket) -> Iterator[float]:
        """The stage in which an edit is written, and how many seconds it may wait for another process that writes."""
        writers = (job for job in self.jobs.all() if job.state == "running" and job.kind in ("refresh", "compact"))
        if (job := next(writers, None)) is not None:
            # It holds the gallery until it ends, and whoever waits for it keeps others from being told so.
            raise GalleryLockedError(
                f"Job {job.id} ({job.kind}) is writing to the gallery; try again when it has ended."
            )
        with ticket.stage("commit"):
            yield min(_WRITER_S, ticket.left_s)

    def _take_what_is_new(self, _: answers.Job) -> None:
        self.state.advance()

    def _require(self, item_id: str) -> None:
        if item_id not in self.state.advance().gallery:
            raise ItemNotFoundError(item_id)

    def _edited(self, item: CatalogItem, is_new: bool) -> answers.Edited:
        return answers.Edited(item_answer(item), self.state.advance().gallery.snapshot.version, is_new)


def _check_one_of(has_photo: bool, item_id: str | None) -> None:
    if has_photo == (item_id is not None):
        raise QuestionError("Send a photo or name an item_id, and not both.")


def _on_one_core() -> None:
    # FAISS's number of threads belongs to the thread that asks.
    faiss.omp_set_num_threads(1)
