"""The service: edits are local, exact, undoable and replayable; sessions are bounded; many threads lose nothing."""

from __future__ import annotations

import dataclasses
import io
import json
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from simulated_gpu import any_gpu  # type: ignore[import-not-found]
from test_text import StandIns  # type: ignore[import-not-found]
from toy import lightness, toy_assets, toy_generator, toy_service  # type: ignore[import-not-found]

from editing.device.loading import Assets, choose_device, load_assets
from editing.device.renderer import Renderer
from editing.device.worker import Worker
from editing.errors import BusyError, EditingError, UnknownSessionError
from editing.face.measure import measure_change, region
from editing.face.recipe import Recipe
from editing.face.session import Session
from editing.photo.decode import Photo
from editing.service import EditingService, Limits
from memorygan.baseline import SemanticStyleGAN
from memorygan.checkpoint import Provenance, save_generator
from memorygan.config import get_preset
from memorygan.generator import MemoryGAN
from memorygan.latents import Latents
from memorygan.memory import Retrieved
from memorygan.parts import FACE_PARTS


@pytest.fixture
def service():
    with toy_service() as opened:
        yield opened


def codes(service: EditingService, session: str) -> torch.Tensor:
    """(K, L, D) codes that are rendered."""
    with service._store.using(session) as found:
        return found.latents().w[0].clone()


def part(service: EditingService, name: str) -> int:
    return [item.name for item in service.parts].index(name)


# --- faces ------------------------------------------------------------------------------------------------------------


def test_the_same_seed_is_the_same_face(service):
    one, two, other = service.new_face(7), service.new_face(7), service.new_face(8)
    assert np.array_equal(one.image, two.image)
    assert not np.array_equal(one.image, other.image)
    assert one.session != two.session
    assert (one.seed, one.truncation, len(one.image)) == (7, 0.7, 32)
    assert len(one.session) >= 20, "not to be guessed"
    assert service.new_face().seed != service.new_face().seed
    mean = service.new_face(7, 0.0)
    assert np.array_equal(mean.image, service.new_face(8, 0.0).image)


def test_candidates_are_the_faces_they_promise(service):
    first, second = service.candidates(2, seed=1, truncation=0.5)
    assert first.seed != second.seed
    assert np.abs(service.new_face(first.seed, 0.5).image.astype(int) - first.image).max() <= 1
    assert [candidate.seed for candidate in service.faces_of(service.gallery())] == [3, 5]


# --- edits ------------------------------------------------------------------------------------------------------------


def test_a_slider_changes_its_part_and_only_its_part(service):
    before = service.new_face(7)
    view = service.set_sliders(before.session, {"hair.lightness": 3.0})
    hair = before.part_map == part(service, "hair")
    assert lightness(view.image, hair) > lightness(before.image, hair) + 10
    assert view.change is not None
    assert view.change.parts == ("hair",)
    assert view.change.inside > 10
    assert view.change.outside < 1
    assert view.change.preserved > 0.6
    assert view.change.map[hair].mean() > 10
    assert view.sliders == {"hair.lightness": 3.0}
    assert view.history == ("Hair: Lightness +3",)
    assert view.revision == before.revision + 1


def test_codes_of_other_parts_and_layers_stay_bit_identical(service):
    session = service.new_face(7).session
    before = codes(service, session)
    service.set_sliders(session, {"hair.width": 2.0})
    after = codes(service, session)
    changed = (before != after).any(dim=2)
    expected = torch.zeros_like(changed)
    expected[part(service, "hair"), 2:6] = True
    assert torch.equal(changed, expected), "the shape layers of the hair, and nothing else"
    service.set_sliders(session, {"hair.width": 0.0})
    assert torch.equal(codes(service, session), before), "back in the middle is as it was"
    service.set_sliders(session, {"base.right": 1.0})
    changed = (before != codes(service, session)).any(dim=2)
    assert changed[1:, :2].all()
    assert not changed[0].any()
    assert not changed[:, 2:].any()


def test_sliders_are_absolute_and_add_up_in_any_order(service):
    one, two = service.new_face(7).session, service.new_face(7).session
    service.set_sliders(one, {"hair.lightness": 1.0})
    service.set_sliders(one, {"mouth.lightness": -2.0})
    first = service.set_sliders(one, {"hair.lightness": 2.5})
    second = service.set_sliders(two, {"mouth.lightness": -2.0, "hair.lightness": 2.5})
    assert np.array_equal(first.image, second.image)
    assert torch.equal(codes(service, one), codes(service, two))
    assert len(first.history) == 2


def test_a_swap_takes_the_part_and_nothing_else(service):
    face, other = service.new_face(7), service.new_face(12)
    mine, theirs = codes(service, face.session), codes(service, other.session)
    view = service.swap(face.session, other.session, ["hair"])
    now, k = codes(service, face.session), part(service, "hair")
    assert torch.equal(now[k, 2:], theirs[k, 2:])
    now[k, 2:] = mine[k, 2:]
    assert torch.equal(now, mine)
    assert view.change is not None
    assert view.change.inside > 3 * max(view.change.outside, 0.1)
    assert view.history == ("Hair from face 12 (truncation 0.7)",)


@pytest.mark.parametrize(
    ("group", "layers"), [("shape", slice(2, 6)), ("texture", slice(6, 10)), ("all", slice(1, 10))]
)
def test_layer_rules_of_swaps(service, group, layers):
    face, other = service.new_face(7).session, service.new_face(12).session
    mine, theirs, k = codes(service, face), codes(service, other), part(service, "nose")
    service.swap(face, other, ["nose"], group)
    expected = mine.clone()
    expected[k, layers] = theirs[k, layers]  # "all" takes the last base layer of a small part along
    assert torch.equal(codes(service, face), expected)


def test_blending_goes_all_the_way(service):
    face, other = service.new_face(7), service.new_face(12)
    half = service.preview_blend(face.session, other.session, 0.5)
    assert not np.array_equal(half.image, face.image)
    assert np.array_equal(service.blend(face.session, other.session, 0.0).image, face.image)
    assert np.array_equal(service.blend(face.session, other.session, 1.0).image, other.image)


def test_parts_of_an_edited_face_come_edited(service):
    face, other = service.new_face(7).session, service.new_face(12).session
    service.set_sliders(other, {"hair.lightness": -3.0})
    edited = codes(service, other)
    service.swap(face, other, ["hair"], "texture")
    k = part(service, "hair")
    assert torch.allclose(codes(service, face)[k, 6:], edited[k, 6:], atol=5e-3)
    service.close_session(other)
    assert service.view(face).history, "the recipe needs the other session no more"


def test_a_swap_absorbs_the_sliders_it_overwrites(service):
    face, other = service.new_face(7).session, service.new_face(12).session
    service.set_sliders(face, {"hair.lightness": 2.0, "hair.width": 1.0, "base.right": 1.0})
    view = service.swap(face, other, ["hair"], "texture")
    assert view.sliders == {"hair.width": 1.0, "base.right": 1.0}
    k = part(service, "hair")
    assert torch.equal(codes(service, face)[k, 6:], codes(service, other)[k, 6:])
    view = service.set_sliders(face, {"hair.lightness": 1.0})
    assert view.sliders["hair.lightness"] == 1.0
    assert len(view.history) == 5


def test_variants_differ_in_their_part_only_and_can_be_taken(service):
    face = service.new_face(7)
    variants = service.variants(face.session, "hair", 4, seed=3)
    assert len({variant.code.tobytes() for variant in variants}) == 4
    assert max(variant.likelihood for variant in variants) == 0.0
    before = codes(service, face.session)
    view = service.apply_variant(face.session, variants[1])
    assert np.abs(view.image.astype(int) - variants[1].image).max() <= 1
    assert view.change is not None
    assert view.change.parts == ("hair",)
    assert view.change.outside < 1 < view.change.inside
    changed = (before != codes(service, face.session)).any(dim=2).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [part(service, "hair")]
    again = service.variants(service.new_face(7).session, "hair", 4, seed=3)
    assert [v.code.tobytes() for v in again] == [v.code.tobytes() for v in variants]
    pose = service.variants(face.session, "base", 2, seed=1)
    assert service.apply_variant(face.session, pose[0]).change.outside < 40
    with pytest.raises(EditingError, match="another face"):
        service.apply_variant(service.new_face(1).session, variants[0])


# --- history ----------------------------------------------------------------------------------------------------------


def test_undo_and_redo_give_the_same_pixels(service):
    start = service.new_face(7)
    session, other = start.session, service.new_face(12).session
    views = [start, service.set_sliders(session, {"hair.lightness": 2.0}), service.swap(session, other, ["mouth"])]
    assert (views[2].can_undo, views[2].can_redo) == (True, False)
    back = service.undo(session)
    assert np.array_equal(back.image, views[1].image)
    assert (back.can_undo, back.can_redo) == (True, True)
    assert np.array_equal(service.undo(session).image, start.image)
    assert service.undo(session).revision == 4, "nothing happens at the beginning"
    assert np.array_equal(service.redo(session).image, views[1].image)
    assert np.array_equal(service.redo(session).image, views[2].image)
    service.undo(session)
    branched = service.set_sliders(session, {"skin.lightness": 1.0})
    assert not branched.can_redo
    assert np.array_equal(service.undo(session).image, views[1].image), "the branch that was left is gone"


def test_resets(service):
    start = service.new_face(7)
    session, other = start.session, service.new_face(12).session
    service.set_sliders(session, {"hair.lightness": 2.0, "base.right": 1.0})
    service.swap(session, other, ["hair", "mouth"])
    view = service.reset_part(session, "hair")
    assert view.history == ("Base: Left–right +1", "Mouth from face 12 (truncation 0.7)")
    fresh, k = service.new_face(7).session, part(service, "hair")
    assert torch.equal(codes(service, session)[k, 2:], codes(service, fresh)[k, 2:])
    view = service.reset_part(session, "base")
    assert view.history == ("Mouth from face 12 (truncation 0.7)",)
    view = service.reset_all(session)
    assert np.array_equal(view.image, start.image)
    assert len(service.undo(session).history) == 1
    with pytest.raises(EditingError, match="unknown part"):
        service.reset_part(session, "beard")


@pytest.mark.parametrize("amount", [1.0, 0.4])
def test_resetting_one_part_of_a_blended_face_leaves_the_others(service, amount):
    """The blend took the base slider in; it must not come back for all parts because one of them is reset."""
    face, other = service.new_face(7).session, service.new_face(12).session
    service.set_sliders(face, {"base.right": 3.0})
    slid = codes(service, face)
    assert service.blend(face, other, amount).sliders == {}
    before, hair = codes(service, face), part(service, "hair")
    view = service.reset_part(face, "hair")
    assert view.sliders == {}
    assert view.change is not None
    assert view.change.parts == ("hair",)
    changed = (before != codes(service, face)).flatten(1).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [hair]
    assert torch.equal(codes(service, face)[hair], slid[hair]), "the hair as it was before the blend"
    again = service.open_recipe(service.export_json(face)).session
    assert torch.equal(codes(service, again), codes(service, face))


def test_before_after_and_change(service):
    start = service.new_face(7)
    session = start.session
    assert service.change(session) is None
    service.set_sliders(session, {"hair.lightness": 2.0})
    service.set_sliders(session, {"mouth.lightness": 2.0})
    assert np.array_equal(service.before(session).image, start.image)
    previous, source = service.change(session), service.change(session, "source")
    assert previous is not None
    assert source is not None
    assert previous.parts == ("mouth",)
    assert source.parts == ("mouth", "hair")
    with pytest.raises(EditingError, match="previous"):
        service.change(session, "yesterday")


def test_undo_depth_is_bounded(monkeypatch):
    monkeypatch.setattr(Session, "undo_depth", 3)
    with toy_service() as service:
        session = service.new_face(7).session
        for value in range(1, 8):
            service.set_sliders(session, {"hair.lightness": value / 2})
        steps = 0
        while service.view(session).can_undo:
            service.undo(session)
            steps += 1
        assert steps == 3


def test_a_refused_edit_changes_nothing(service):
    view = service.new_face(7)
    session = view.session
    bad: list[Callable[[], object]] = [
        lambda: service.set_sliders(session, {"hair.fluff": 1.0}),
        lambda: service.set_sliders(session, {"hair.lightness": 99.0}),
        lambda: service.set_sliders(session, {"hair.lightness": float("nan")}),
        lambda: service.swap(session, session, ["beard"]),
        lambda: service.swap(session, session, []),
        lambda: service.swap(session, session, ["hair"], "most"),
        lambda: service.swap(session, session, ["hair"], "all", 2.0),
        lambda: service.variants(session, "beard"),
        lambda: service.variants(session, "hair", 1000),
        lambda: service.variants(session, "hair", group="every"),
        lambda: service.sliders("beard"),
        lambda: service.new_face(-1),
        lambda: service.new_face(1, truncation=7),
        lambda: service.candidates(0),
    ]
    for call in bad:
        with pytest.raises(EditingError) as caught:
            call()
        assert "\n" not in str(caught.value)
    after = service.view(session)
    assert after.revision == view.revision
    assert np.array_equal(after.image, view.image)


# --- keeping ----------------------------------------------------------------------------------------------------------


def worked_on(service: EditingService) -> str:
    """A face with every kind of edit."""
    session, other = service.new_face(7).session, service.new_face(12).session
    service.set_sliders(session, {"hair.lightness": 2.0, "base.right": -1.0})
    service.swap(session, other, ["mouth", "eyes"])
    service.set_sliders(other, {"skin.lightness": 2.0})
    service.swap(session, other, ["skin"], "texture", 0.6)
    service.apply_variant(session, service.variants(session, "hair", 2, seed=1, group="shape")[1])
    service.blend(session, other, 0.2)
    return session


def test_a_picture_replays_to_the_same_pixels(service):
    session = worked_on(service)
    view = service.view(session)
    png = service.export_png(session)
    with toy_service() as elsewhere:
        again = elsewhere.open_recipe(png)
        assert np.array_equal(again.image, view.image)
        assert again.history == view.history
        assert again.sliders == view.sliders
        assert elsewhere.open_recipe(service.export_json(session)).history == view.history
        undone = elsewhere.undo(again.session)
        assert len(undone.history) == len(view.history) - 1, "its steps can be undone one by one"
    assert service.diff(session, service.open_recipe(png).session) == ()
    assert service.diff(session, service.new_face(7).session) != ()


def test_duplicates_go_their_own_way(service):
    session = worked_on(service)
    copy = service.duplicate(session)
    assert np.array_equal(copy.image, service.view(session).image)
    assert copy.can_undo
    service.reset_all(copy.session)
    assert service.view(session).history
    service.close_session(session)
    assert np.array_equal(service.undo(copy.session).image, copy.image)


def test_recipes_of_another_model_or_other_sliders(service):
    session = service.new_face(7).session
    service.set_sliders(session, {"hair.lightness": 2.0})
    recipe = service.recipe(session)
    before = len(service._store)
    with pytest.raises(EditingError, match="another model"):
        service.open_recipe(dataclasses.replace(recipe, checkpoint="other").to_json())
    view = service.open_recipe(dataclasses.replace(recipe, sliders="x" * 64).to_json())
    assert "another set of sliders" in (view.notice or "")
    bare = Assets(**{**toy_assets().__dict__, "sliders": None})
    with EditingService(bare) as plain, pytest.raises(EditingError, match="no sliders"):
        plain.open_recipe(recipe.to_json())
    assert len(service._store) == before + 1, "a refused recipe leaves no session behind"


def test_damaged_recipes_never_reach_the_device(service):
    session = worked_on(service)
    data = json.loads(service.export_json(session))
    for edit in data["edits"]:
        for key in list(edit):
            wrong: tuple[object, ...] = (None, [], "x", -1e9)
            for bad in wrong:
                broken = {**data, "edits": [{**edit, key: bad}]}
                try:
                    Recipe.from_dict(broken)
                    service.open_recipe(json.dumps(broken))
                except EditingError:
                    continue
    assert service.view(session).history


# --- what is not recomputed, what is bounded --------------------------------------------------------------------------


def test_only_the_edited_part_is_asked_for_again():
    with toy_service() as service:
        session = service.new_face(7).session
        asked = service._renderer.generator.asked
        asked.clear()
        service.set_sliders(session, {"hair.lightness": 2.0})
        assert asked == [(part(service, "hair"),)]
        service.preview_sliders(session, {"mouth.lightness": 1.0})
        assert asked[1:] == [(part(service, "mouth"),)]
        asked.clear()
        service.undo(session)
        service.redo(session)
        service.compose(session)
        assert asked == []
        cache = service._renderer.cache
        assert cache.bytes > 0
        service.close_session(session)
        assert cache.bytes == 0, "freed with the session"


def test_the_cache_is_bounded_and_does_not_change_pixels():
    generator = toy_generator()
    latents = generator.sample([5])
    roomy, tight = Renderer(generator), Renderer(generator, cache_bytes=200_000)
    pictures = [renderer.render("a", latents).image for renderer in (roomy, tight, roomy, tight)]
    assert all(np.array_equal(picture, pictures[0]) for picture in pictures)
    assert tight.cache.bytes <= 200_000 < roomy.cache.bytes
    assert roomy.cache.hits == 13


def test_least_recently_used_sessions_become_recipes_and_come_back():
    with toy_service(Limits(max_sessions=2)) as service:
        session = worked_on(service)
        view = service.view(session)
        for seed in range(4):
            service.new_face(seed)
        health = service.health()
        assert health["sessions"] == 2
        assert health["archived"] >= 1
        assert session not in service._store._live
        back = service.view(session)
        assert np.array_equal(back.image, view.image)
        assert (back.revision, back.history, back.can_undo) == (view.revision, view.history, True)
        assert len(service.undo(session).history) == len(view.history) - 1


def test_a_session_stored_between_look_up_and_lock_is_looked_up_again(monkeypatch):
    """Otherwise the edit would go to an object that nobody reads any more."""
    with toy_service(Limits(max_sessions=1)) as service:
        token = service.new_face(1).session
        store = service._store
        look_up = store._get
        stale = look_up(token)
        service.new_face(2)
        assert token in store._archived
        answers = iter([stale])
        monkeypatch.setattr(store, "_get", lambda token: next(answers, None) or look_up(token))
        service.set_sliders(token, {"hair.lightness": 1.0})
        assert service.view(token).sliders == {"hair.lightness": 1.0}


def test_archives_are_bounded():
    with toy_service(Limits(max_sessions=1)) as service:
        service._store.max_archived = 2
        first = service.new_face(1).session
        others = [service.new_face(seed).session for seed in (2, 3, 4)]
        with pytest.raises(UnknownSessionError):
            service.view(first)
        assert service.view(others[0]).seed == 2


def test_unknown_sessions_are_refused_everywhere(service):
    for call in (service.view, service.undo, service.export_png, service.compose, service.duplicate, service.recipe):
        with pytest.raises(UnknownSessionError):
            call("nobody")
    service.close_session("nobody")


def start(service: EditingService, number: int) -> str:
    """A session: of four in a row one is edited by a sentence, and one is a photo that is rebuilt."""
    view = service.new_face(number)
    if number % 4 == 0:
        *_, told = service.describe(view.session, "red hair", ["hair"], steps=3, seed=number)
        assert told.proposal is not None
        service.apply_description(view.session, told.proposal)
    if number % 4 == 2:
        stream = io.BytesIO()
        Image.fromarray(view.image).save(stream, "PNG")
        photo = service.open_photo(stream.getvalue())
        *_, rebuilt = service.invert(photo.photo, crop=(0, 0, service.size), steps=2)
        assert rebuilt.view is not None
        return rebuilt.view.session
    return view.session


# --- many at once -----------------------------------------------------------------------------------------------------


def test_sixteen_sessions_at_once_lose_nothing():
    """With room for five live sessions, so that they are stored and restored all the time; eight of the sixteen also
    run a long job: edits by sentences and reconstructions of photos."""
    with toy_service(Limits(max_sessions=5), guides=StandIns(), detector=lambda pixels: []) as service:

        def work(number: int) -> tuple[str, np.ndarray, tuple[str, ...]]:
            session = start(service, number)
            other = service.new_face(100 + number).session
            for value in (0.5, 1.0, 1.5):
                service.preview_sliders(session, {"hair.lightness": value})
            service.set_sliders(session, {"hair.lightness": 1.5})
            service.swap(session, other, ["mouth"])
            service.undo(session)
            view = service.set_sliders(session, {"skin.lightness": number / 8 - 1.1})
            return session, view.image, view.history

        with ThreadPoolExecutor(16) as pool:
            results = list(pool.map(work, range(16)))
        assert service.health()["jobs"] == 0
        with toy_service(guides=StandIns(), detector=lambda pixels: []) as calm:
            for number, (session, image, history) in enumerate(results):
                alone = start(calm, number)
                calm.set_sliders(alone, {"hair.lightness": 1.5})
                expected = calm.set_sliders(alone, {"skin.lightness": number / 8 - 1.1})
                assert np.array_equal(image, expected.image)
                assert history == expected.history
                assert np.array_equal(service.view(session).image, image)
                model = service.model_view(session).image
                assert np.array_equal(calm.open_recipe(service.export_png(session)).image, model)


def test_previews_of_several_people_are_composed_together(service):
    """Whatever part each of them is at."""
    sessions = [service.new_face(seed).session for seed in range(6)]
    gate = threading.Event()
    blocker = threading.Thread(target=lambda: service._worker.call("hold", gate.wait))
    blocker.start()
    moves = [{"hair.lightness": 2.0}, {"mouth.lightness": 2.0, "base.right": 1.0}, {"mouth.lightness": -2.0}] * 2
    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(service.preview_sliders, *pair) for pair in zip(sessions, moves, strict=True)]
        deadline = time.monotonic() + 20
        while service.health()["queue"] < 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        gate.set()
        previews = [future.result() for future in waiting]
    blocker.join()
    assert service.health()["timings"]["batch"] == {"count": 1.0, "mean_size": 6.0}
    for token, preview, move in zip(sessions, previews, moves, strict=True):
        assert preview.preview
        assert preview.session == token
        committed = service.set_sliders(token, move)
        assert np.abs(committed.image.astype(int) - preview.image).max() <= 1


def test_the_last_slider_value_wins(service):
    session = service.new_face(1).session
    gate = threading.Event()
    blocker = threading.Thread(target=lambda: service._worker.call("hold", gate.wait))
    blocker.start()
    with ThreadPoolExecutor(4) as pool:
        waiting = []
        for value in (-3.0, 0.5, 3.0):
            waiting.append(pool.submit(service.preview_sliders, session, {"hair.lightness": value}))
            time.sleep(0.2)
        queued = service.health()["queue"]
        gate.set()
        views = [future.result() for future in waiting]
    assert queued == 1
    blocker.join()
    pictures = [view.image for view in views]
    assert np.array_equal(pictures[0], pictures[2])
    assert [view.sliders for view in views] == [{"hair.lightness": 3.0}] * 3, "what is said fits what is shown"
    assert np.abs(service.set_sliders(session, {"hair.lightness": 3.0}).image.astype(int) - pictures[0]).max() <= 1


def test_previews_of_another_kind_do_not_replace_each_other(service):
    session, other = service.new_face(1).session, service.new_face(2).session
    gate = threading.Event()
    blocker = threading.Thread(target=lambda: service._worker.call("hold", gate.wait))
    blocker.start()
    with ThreadPoolExecutor(3) as pool:
        waiting = [
            pool.submit(service.preview_sliders, session, {"hair.lightness": 3.0}),
            pool.submit(service.preview_blend, session, other, 1.0),
            pool.submit(service.preview_swap, session, other, ["hair"]),
        ]
        deadline = time.monotonic() + 20
        while service.health()["queue"] < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        gate.set()
        slid, blended, swapped = (future.result() for future in waiting)
    blocker.join()
    assert slid.sliders == {"hair.lightness": 3.0}
    assert np.abs(blended.image.astype(int) - service.view(other).image).max() <= 1
    assert swapped.history == ("Hair from face 2 (truncation 0.7)",)


def test_a_preview_commits_nothing(service):
    view = service.new_face(1)
    preview = service.preview_sliders(view.session, {"hair.lightness": 3.0})
    assert preview.sliders == {"hair.lightness": 3.0}
    assert (preview.revision, preview.can_undo) == (view.revision, False)
    assert np.array_equal(service.view(view.session).image, view.image)
    swapped = service.preview_swap(view.session, service.new_face(2).session, ["hair"])
    assert not np.array_equal(swapped.image, view.image)
    assert not service.view(view.session).history


# --- the worker by itself ---------------------------------------------------------------------------------------------


def test_long_jobs_take_turns():
    worker = Worker(lambda payloads: payloads)
    order: list[str] = []
    gate = threading.Event()
    threads = [threading.Thread(target=lambda: worker.call("hold", gate.wait))]
    threads[0].start()
    time.sleep(0.1)

    def job(name: str) -> None:
        futures = [threading.Thread(target=worker.step, args=(name, lambda: order.append(name))) for _ in range(4)]
        threads.extend(futures)
        for thread in futures:
            thread.start()

    job("a")
    time.sleep(0.1)
    job("b")
    time.sleep(0.1)
    gate.set()
    for thread in threads:
        thread.join()
    worker.close()
    assert order == ["a", "b"] * 4


def test_interactive_work_passes_between_the_steps_of_a_job():
    worker = Worker(lambda payloads: payloads)
    stop = threading.Event()

    def job() -> None:
        while not stop.is_set():
            worker.step("job", lambda: time.sleep(0.02))

    thread = threading.Thread(target=job)
    thread.start()
    started = time.perf_counter()
    for _ in range(5):
        assert worker.call("quick", lambda: 1) == 1
    seconds = time.perf_counter() - started
    stop.set()
    thread.join()
    worker.close()
    assert seconds < 2.0


def test_a_full_queue_is_refused():
    worker = Worker(lambda payloads: payloads, max_queue=2)
    gate = threading.Event()
    threads = [threading.Thread(target=lambda: worker.call("hold", gate.wait)) for _ in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    with pytest.raises(BusyError, match="try again"):
        worker.call("more", lambda: None)
    gate.set()
    for thread in threads:
        thread.join()
    worker.close()


def test_out_of_memory_halves_the_batch_then_leaves_the_device():
    sizes: list[int] = []
    room = [2]

    def run(payloads):
        sizes.append(len(payloads))
        if len(payloads) > room[0]:
            raise torch.OutOfMemoryError("out of memory")
        return [payload * 10 for payload in payloads]

    def leave() -> bool:
        room[0] = 8
        return True

    worker = Worker(run, leave, batch_window=0.0)
    gate = threading.Event()
    holder = threading.Thread(target=lambda: worker.call("hold", gate.wait))
    holder.start()
    time.sleep(0.1)
    futures = [worker.preview(str(number), "key", number) for number in range(4)]
    gate.set()
    assert [future.result(10) for future in futures] == [0, 10, 20, 30]
    assert sizes == [4, 2, 2]
    room[0] = 0
    assert worker.preview("a", "key", 5).result(10) == 50, "not even one fitted, so the device was changed"
    holder.join()
    worker.close()
    stuck = Worker(lambda payloads: run([1] * 99))
    with pytest.raises(EditingError, match="out of memory"):
        stuck.preview("a", "key", 5).result(10)

    def fail() -> None:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(EditingError, match="out of memory"):
        stuck.call("render", fail)
    stuck.close()


def test_companions_of_a_preview_are_waited_for_only_while_others_move_sliders_too(monkeypatch):
    sizes: list[int] = []

    def run(payloads: Sequence[int]) -> Sequence[int]:
        sizes.append(len(payloads))
        return payloads

    worker = Worker(run, lambda: True, max_batch=2, batch_window=60.0)
    monkeypatch.setattr("editing.device.worker._TOGETHER", 60.0)
    together = [worker.preview(person, "key", 1) for person in "ab"]
    assert [future.result(10) for future in together] == [1, 1]
    assert sizes == [2]
    worker._company = 0.0  # time has passed
    assert worker.preview("b", "key", 2).result(10) == 2, "who is alone does not wait"
    assert sizes == [2, 1]
    worker.close()


def test_what_did_not_fit_is_let_go_before_it_is_tried_again():
    """The error's traceback holds the frames, and with them the tensors, of the call that failed."""
    alive: list[weakref.ref[np.ndarray]] = []
    seen: list[int] = []
    failures = [3]

    def run(payloads: Sequence[int]) -> Sequence[int]:
        seen.append(sum(array() is not None for array in alive))
        big = np.zeros(8)
        alive.append(weakref.ref(big))
        failures[0] -= 1
        if failures[0] >= 0:
            raise torch.OutOfMemoryError("out of memory")
        return payloads

    freed: list[int] = []
    worker = Worker(run, lambda: True, lambda: freed.append(1), batch_window=0.0)
    gate = threading.Event()
    holder = threading.Thread(target=lambda: worker.call("hold", gate.wait))
    holder.start()
    time.sleep(0.1)
    futures = [worker.preview(number, "key", number) for number in range(2)]
    gate.set()
    assert [future.result(10) for future in futures] == [0, 1]
    holder.join()
    assert seen == [0] * len(seen)
    assert len(freed) == 2, "once for the batch, once for the single item, before the device was left"
    seen.clear()
    failures[0] = 2
    assert worker.call("render", lambda: run([1])) == [1]
    assert seen == [0, 0, 0], "here too, before the last attempt"
    worker.close()


def test_a_single_failure_does_not_leave_the_device():
    """Memory that was kept for speed alone is given back first."""
    room: list[str] = []
    left: list[str] = []

    def render() -> str:
        if not room:
            raise torch.OutOfMemoryError("out of memory")
        return "a picture"

    def leave() -> bool:
        left.append("the device")
        return True

    worker = Worker(lambda payloads: payloads, leave, lambda: room.append("room"))
    assert worker.call("render", render) == "a picture"
    assert left == []
    worker.close()


class Card:
    """Pretends that the renderer is on a graphics card on which nothing fits any more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = True
        self.moved: list[str] = []
        here, move = Renderer.device.fget, Renderer.move  # type: ignore[attr-defined]

        def retrieve(renderer: Renderer, owner: str, latents: Latents) -> Retrieved:
            if self.full:
                raise torch.OutOfMemoryError("out of memory")
            return found(renderer, owner, latents)

        def leave(renderer: Renderer, device: str) -> None:
            self.full = False
            self.moved.append(device)
            move(renderer, device)

        found = Renderer.retrieve
        monkeypatch.setattr(Renderer, "device", property(lambda r: torch.device("cuda") if self.full else here(r)))
        monkeypatch.setattr(Renderer, "retrieve", retrieve)
        monkeypatch.setattr(Renderer, "move", leave)


def test_when_not_even_one_face_fits_the_work_goes_on_on_the_processor(monkeypatch):
    expected = None
    with toy_service() as calm:
        expected = calm.new_face(7).image
    with toy_service() as service:
        assert service.notice is None
        card = Card(monkeypatch)
        view = service.new_face(7)
        assert card.moved == ["cpu"]
        assert np.array_equal(view.image, expected)
        assert "ran out of memory" in (service.notice or "")
        assert service.health()["device"] == "cpu"
        assert service.health()["notice"] == service.notice


def test_a_composition_survives_a_step_that_did_not_fit(monkeypatch, service):
    session = service.new_face(4).session
    expected = service.compose(session)
    generator = service._renderer.generator
    compose, calls = generator.compose, iter(range(1000))

    def once_too_large(*arguments):
        if next(calls) == 3:
            raise torch.OutOfMemoryError("out of memory")
        return compose(*arguments)

    monkeypatch.setattr(generator, "compose", once_too_large)
    frames = service.compose(session)
    assert [frame.part for frame in frames] == [frame.part for frame in expected]
    for frame, other in zip(frames, expected, strict=True):
        assert np.array_equal(frame.image, other.image)
        assert frame.smse == pytest.approx(other.smse, nan_ok=True)


def test_small_pictures_of_many_faces_are_made_in_halves_where_they_do_not_fit(monkeypatch):
    renderer = Renderer(toy_generator())
    latents = renderer.generator.sample(range(5))
    expected = renderer.render_batch(latents, 16)
    synthesize, sizes = renderer.generator.synthesize, []

    def for_two(latents, *arguments, **options):
        sizes.append(len(latents))
        if len(latents) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return synthesize(latents, *arguments, **options)

    monkeypatch.setattr(renderer.generator, "synthesize", for_two)
    pictures = renderer.render_batch(latents, 16)
    assert sizes == [5, 2, 3, 1, 2]
    assert len(pictures) == 5
    for picture, other in zip(pictures, expected, strict=True):
        assert np.abs(picture.image.astype(int) - other.image).max() <= 1


def test_uploads_are_unpacked_a_few_at_a_time(monkeypatch):
    lock, running, most = threading.Lock(), [0], [0]

    def slow(data):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.05)
        with lock:
            running[0] -= 1
        return Photo(np.zeros((40, 40, 3), dtype=np.uint8), 40, 40)

    monkeypatch.setattr("editing.own_photo.decode", slow)
    with toy_service(detector=lambda pixels: []) as service, ThreadPoolExecutor(6) as pool:
        assert len({view.photo for view in pool.map(service.open_photo, [b""] * 6)}) == 6
    assert most[0] == 2


def test_errors_reach_the_caller_and_the_thread_goes_on():
    worker = Worker(lambda payloads: 1 / 0)  # type: ignore[arg-type, return-value]
    with pytest.raises(ZeroDivisionError):
        worker.preview("a", "key", 1).result(10)
    with pytest.raises(KeyError):
        worker.call("x", lambda: dict[str, int]()["missing"])
    assert worker.call("x", lambda: 5) == 5
    assert worker.call("x", lambda: worker.call("nested", lambda: 6)) == 6
    worker.close()
    with pytest.raises(EditingError, match="closed"):
        worker.call("x", lambda: 5)


# --- models -----------------------------------------------------------------------------------------------------------


def test_without_a_checkpoint_an_untrained_one_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("editing.device.loading.default_checkpoint", lambda: None)
    monkeypatch.setattr("editing.device.loading.WEIGHTS_DIR", tmp_path)
    with EditingService.open(device="cpu") as service:
        assert "untrained" in (service.notice or "")
        assert not service.trained
        assert service.new_face(1).image.shape == (32, 32, 3)
        assert service.capabilities["sliders"]
        assert service.capabilities["parse"]
        assert service.capabilities["photo"] == ""
        with pytest.raises(EditingError, match="no sliders"):
            service.set_sliders(service.new_face(1).session, {"hair.lightness": 1})
        json.dumps(service.health(), allow_nan=False)


@pytest.mark.parametrize("kind", ["memorygan", "semanticstylegan"])
def test_a_stored_checkpoint_of_either_kind(tmp_path, kind):
    torch.manual_seed(0)
    config = get_preset("tiny-32").generator
    generator = MemoryGAN(config) if kind == "memorygan" else SemanticStyleGAN(config)
    path = tmp_path / "model.safetensors"
    save_generator(path, generator, provenance=Provenance())
    (tmp_path / "gallery.json").write_text("[4, 8, -1, true]")
    (tmp_path / "sliders.safetensors").write_bytes(b"broken")
    with EditingService.open(path, "cpu") as service:
        assert service.gallery() == (4, 8)
        assert service.capabilities["sliders"]
        assert service.notice is None
        session, other = service.new_face(1), service.new_face(2)
        mixed = service.swap(session.session, other.session, ["hair", "skin"])
        assert not np.array_equal(mixed.image, session.image)
        variants = service.variants(session.session, "hair", 2, seed=1)
        view = service.apply_variant(session.session, variants[0])
        assert np.array_equal(service.open_recipe(service.export_png(session.session)).image, view.image)
        assert len(service.compose(session.session)) == 13
        assert service.candidates(3, seed=1)[0].image.shape == (32, 32, 3)


def test_checkpoints_that_cannot_be_used(tmp_path):
    with pytest.raises(EditingError, match="no checkpoint"):
        EditingService.open(tmp_path / "none.safetensors", "cpu")
    for name in ("abacus", "meta"):
        with pytest.raises(EditingError, match=f"unknown device '{name}'"):
            choose_device(name)
    if not torch.cuda.is_available():
        with pytest.raises(EditingError, match="no usable NVIDIA GPU"):
            choose_device("cuda")
    with any_gpu():
        assert choose_device("auto").type == choose_device("cuda:0").type == "cuda"
        with pytest.raises(EditingError, match="there is no cuda:99: of "):
            choose_device("cuda:99")


def test_a_broken_bundled_checkpoint_does_not_stop_the_program(monkeypatch, tmp_path):
    broken = tmp_path / "faces-128.safetensors"
    broken.write_bytes(b"not a checkpoint")
    monkeypatch.setattr("editing.device.loading.default_checkpoint", lambda: broken)
    assets = load_assets(None, torch.device("cpu"))
    assert not assets.trained
    assert "cannot be used" in (assets.notice or "")


def test_health_is_plain_json(service):
    view = service.new_face(1)
    service.preview_sliders(view.session, {"hair.lightness": 1.0})
    health = json.loads(json.dumps(service.health(), allow_nan=False))
    assert health["status"] == "ok"
    assert health["sessions"] == 1
    assert health["timings"]["preview"]["median_ms"] > 0
    assert set(service.capabilities) >= {"sliders", "resample", "photo", "align", "parse", "encode", "mp4"}
    assert {slider.part for slider in service.sliders()} == {"hair", "mouth", "skin", "base"}
    assert [slider.id for slider in service.sliders("base")] == ["base.right"]


# --- measures ---------------------------------------------------------------------------------------------------------


def test_measures_by_hand():
    before = np.zeros((4, 4, 3), dtype=np.uint8)
    after = before.copy()
    after[0, 0] = (30, 0, 0)  # inside
    after[3, 3] = (0, 3, 3)  # outside
    part_map = np.zeros((4, 4), dtype=np.uint8)
    part_map[:2] = FACE_PARTS.index("hair")
    inside = region([part_map], ["hair"], FACE_PARTS)
    change = measure_change(before, after, inside, ["hair"])
    assert change.map[0, 0] == 10.0
    assert change.inside == pytest.approx(10 / 8)
    assert change.outside == pytest.approx(2 / 8)
    assert change.area == 0.5
    assert change.preserved == pytest.approx(14 / 16)
    assert measure_change(before, before).preserved == 1.0
    whole = measure_change(before, after)
    assert (whole.outside, whole.area) == (0.0, 1.0)
