"""What Prometheus reads."""

import pytest
from api_clients import ask, client, get, openai
from served import QUESTIONS

# httpx leaves its pool to the garbage collector where a test leaves a client open.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def test_prometheus_reads_what_happened(start_server):
    parser = pytest.importorskip("prometheus_client.parser")
    port, _ = start_server()
    with client(port) as api:
        new = ask(api, QUESTIONS[0], "base").usage.completion_tokens
        with pytest.raises(openai.BadRequestError):
            ask(api, QUESTIONS[0], n=3)
    _, headers, text = get(port, "/metrics")
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["medtune_requests_total", "200", "chat"] == 1
    assert samples["medtune_requests_total", "400", "chat"] == 1
    assert samples["medtune_new_tokens_total", "base"] == new
    assert samples["medtune_requests_running", "tuned"] == 0
    assert samples["medtune_request_seconds_count",] == 1
