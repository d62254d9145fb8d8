"""OpenAI's Python SDK against the real server: what a program does that changes nothing but `base_url`."""

import base64
import io
import threading
import urllib.request
import uuid

import openai
import pytest
from PIL import Image, ImageChops

from server import serving

KEY = "sk-a-key-of-the-tests"
QUICK = {"seed": 7, "steps": 4, "guidance_scale": 1}


@pytest.fixture(scope="module")
def server():
    with serving(EASEL_API_KEYS=KEY) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=server.base_url, api_key=KEY, max_retries=0)


def picture_of(image):
    return Image.open(io.BytesIO(base64.b64decode(image.b64_json)))


def png(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "picture.png", file.getvalue(), "image/png"


@pytest.fixture(scope="module")
def heart(client):
    answer = client.images.generate(prompt="a red heart", response_format="b64_json", extra_body=QUICK)
    return picture_of(answer.data[0])


def test_draws_the_size_that_clients_have_built_in_with_openais_model_names(client):
    answer = client.images.generate(
        model="gpt-image-1", prompt="a red heart", size="1024x1024", quality="low", n=2,
        response_format="b64_json", extra_body=QUICK,
    )
    assert [picture_of(image).size for image in answer.data] == [(1024, 1024)] * 2
    assert answer.size == "1024x1024" and answer.output_format == "png"
    usage = answer.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.input_tokens_details.text_tokens == usage.input_tokens > 0


def test_an_edit_keeps_what_the_mask_does_not_open(client, heart):
    mask = Image.new("RGBA", heart.size, (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, heart.width // 2, heart.height))
    answer = client.images.edit(
        image=png(heart), mask=png(mask), prompt="a blue cat", response_format="b64_json", extra_body=QUICK,
    )
    edited = picture_of(answer.data[0]).convert("RGB")
    assert edited.size == heart.size
    kept, opened = (heart.width // 2, 0, *heart.size), (0, 0, heart.width // 2, heart.height)
    difference = ImageChops.difference(edited, heart.convert("RGB"))
    assert difference.crop(kept).getbbox() is None, "a pixel outside the mask has changed"
    assert difference.crop(opened).getbbox() is not None, "nothing inside the mask has changed"


def test_varies_a_picture(client, heart):
    answer = client.images.create_variation(image=png(heart), n=2, response_format="b64_json")
    first, second = (picture_of(image).convert("RGB") for image in answer.data)
    assert first.size == second.size == heart.size
    assert ImageChops.difference(first, second).getbbox() is not None


def test_streams_two_previews_and_the_picture(client):
    stream = client.images.generate(
        prompt="a red heart", size="256x256", stream=True, partial_images=2, extra_body=QUICK | {"steps": 8},
    )
    events = list(stream)
    kinds = [event.type for event in events]
    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert all(picture_of(event).size == (256, 256) for event in events)
    assert events[-1].usage.output_tokens > 0


def test_reads_an_answer_back_from_its_url(client):
    answer = client.images.generate(prompt="a red heart", size="256x256", extra_body=QUICK)
    assert answer.data[0].b64_json is None
    with urllib.request.urlopen(answer.data[0].url) as file:
        assert file.headers["content-type"] == "image/png"
        assert Image.open(file).size == (256, 256)


def test_the_models_are_listed_and_found_by_their_aliases(client):
    assert "sketch" in [model.id for model in client.models.list()]
    assert client.models.retrieve("sketch").owned_by == "easel"
    assert client.models.retrieve("gpt-image-1").object == "model"


def test_a_wrong_field_is_a_bad_request_that_names_it(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(prompt="a red heart", n=11)
    assert refused.value.param == "n" and "11" in refused.value.message


def test_a_wrong_key_is_an_authentication_error(server):
    stranger = openai.OpenAI(base_url=server.base_url, api_key="sk-wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as refused:
        stranger.images.generate(prompt="a red heart")
    assert refused.value.code == "invalid_api_key"


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as refused:
        client.images.generate(model="no-such-model", prompt="a red heart")
    assert refused.value.code == "model_not_found"


def test_a_full_queue_is_a_rate_limit_error():
    with serving("--max-queue", "1") as narrow:
        client = openai.OpenAI(base_url=narrow.base_url, api_key="unused", max_retries=0)
        slow = threading.Thread(
            target=client.images.generate, kwargs={"prompt": "a red heart", "extra_body": {"steps": 60}}
        )
        slow.start()
        while narrow.metric("easel_running_jobs") + narrow.metric("easel_queue_depth") == 0:
            pass
        with pytest.raises(openai.RateLimitError) as refused:
            client.images.generate(prompt="a red heart")
        assert int(refused.value.response.headers["retry-after"]) >= 1
        slow.join()


def test_a_retry_with_an_idempotency_key_does_not_draw_twice(server):
    hasty = openai.OpenAI(base_url=server.base_url, api_key=KEY, max_retries=8, timeout=0.7)
    before = server.metric("easel_images_total")
    answer = hasty.images.with_raw_response.generate(
        prompt="a red heart", response_format="b64_json", extra_body=QUICK | {"steps": 30},
        extra_headers={"Idempotency-Key": str(uuid.uuid4())},
    )
    assert answer.retries_taken > 0, "the first try was to break off"
    assert picture_of(answer.parse().data[0]).size == (256, 256)
    assert server.metric("easel_images_total") == before + 1
