"""Which models there are, as OpenAI's own client lists them."""

import pytest
from api_clients import ask, client, get, openai

from medtune.inference.chat import NO_ADVICE

# httpx leaves its pool to the garbage collector where a test leaves a client open.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def test_models_say_what_they_are(start_server):
    port, _ = start_server()
    with client(port) as api:
        assert [model.id for model in api.models.list()] == ["tuned", "base"]
        assert api.models.retrieve("base").notice == NO_ADVICE
        with pytest.raises(openai.NotFoundError):
            api.models.retrieve("gpt")
        with pytest.raises(openai.NotFoundError) as caught:
            ask(api, "Gout ?", "gpt")
    assert caught.value.code == "model_not_found"
    assert get(port, "/health")[1]["x-medtune-notice"] in (None, NO_ADVICE)
