"""The TrainJob: Kubeflow's own model of it loses no key, and what it starts is what the other scripts start."""

from __future__ import annotations

from typing import Any

import pytest
from deploy_files import DEPLOY
from kubeflow_trainer_api.models.io_k8s_api_core_v1_persistent_volume_claim import IoK8sApiCoreV1PersistentVolumeClaim
from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob
from pydantic import ValidationError
from ruamel.yaml import YAML

CLAIM, JOB = YAML(typ="safe").load_all(DEPLOY / "kubeflow-trainjob.yaml")
# The operator sets them, and refuses a job that does.
RESERVED = {"PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"}


def pod() -> dict[str, Any]:
    """The pod's part of the one patch."""
    (patch,) = JOB["spec"]["runtimePatches"]
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert job["name"] == "node"
    found: dict[str, Any] = job["template"]["spec"]["template"]["spec"]
    return found


def test_kubeflow_knows_every_key() -> None:
    assert TrainerV1alpha1TrainJob.from_dict(JOB).to_dict() == JOB
    assert IoK8sApiCoreV1PersistentVolumeClaim.from_dict(CLAIM).to_dict() == CLAIM
    assert (JOB["apiVersion"], JOB["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob")
    assert JOB["spec"]["runtimeRef"]["name"] == "torch-distributed"


def test_the_model_notices_a_wrong_key_and_a_wrong_type() -> None:
    trainer = JOB["spec"]["trainer"]
    wrong = {**JOB, "spec": {**JOB["spec"], "trainer": {**trainer, "numNode": 2}}}
    assert TrainerV1alpha1TrainJob.from_dict(wrong).to_dict() != wrong
    with pytest.raises(ValidationError):
        TrainerV1alpha1TrainJob.from_dict({**JOB, "spec": {**JOB["spec"], "trainer": {**trainer, "numNodes": "2"}}})


def test_torchrun_is_the_first_process_and_the_run_always_resumes() -> None:
    trainer = JOB["spec"]["trainer"]
    assert trainer["command"] == ["torchrun"]
    assert " ".join(trainer["args"]) == (
        "--max-restarts=0 -m medtune run llama3-8b-80gb --run-dir=/runs/llama3-8b-80gb --resume"
    )
    assert RESERVED.isdisjoint(each["name"] for each in trainer["env"])


def test_the_run_is_on_the_claim_that_every_node_mounts() -> None:
    volumes = {each["name"]: each for each in pod()["volumes"]}
    (container,) = pod()["containers"]
    mounts = {each["mountPath"]: volumes[each["name"]] for each in container["volumeMounts"]}
    assert container["name"] == "node"
    assert mounts["/runs"]["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]
    assert mounts["/dev/shm"]["emptyDir"] == {"medium": "Memory"}
    assert CLAIM["spec"]["accessModes"] == ["ReadWriteMany"]


def test_torchrun_has_less_time_to_end_than_the_pod() -> None:
    values = {each["name"]: each.get("value") for each in JOB["spec"]["trainer"]["env"]}
    assert int(values["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) < pod()["terminationGracePeriodSeconds"]
