"""A config and its data in, what a run begins with out: weights, tokenizer and normalisers, new or of a bundle."""

from __future__ import annotations

from dataclasses import dataclass

from vla_policy.checkpoint import Bundle, check_fits, load_bundle
from vla_policy.contract import RobotContract
from vla_policy.errors import ConfigError
from vla_policy.model.config import ModelFile
from vla_policy.model.registry import BACKBONES, resolve
from vla_policy.model.tokenizer import Tokenizer
from vla_policy.model.vla import VLAModel, build_model
from vla_training.config import TrainingConfig
from vla_training.datasets.statistics import Normalizers
from vla_training.datasets.training_data import TrainingData
from vla_training.tabletop.pretrain import load_grounding
from vla_training.training.same_model import check_same_model
from vla_training.training.vocabulary import learn_words

# What a model section says of its action head; all else must be the bundle's where a new head is put on it.
HEAD_KEYS = ("action_head", "action_space", "head_options", "action_chunk_size", "execute_rows", "gripper_hysteresis")

@dataclass(frozen=True, slots=True)
class Start:
    """What a run begins with. statistics: the key of those that the normalisers are of."""

    model: VLAModel
    tokenizer: Tokenizer
    normalizers: Normalizers
    statistics: str


def make_start(file: ModelFile, training: TrainingConfig, contract: RobotContract, data: TrainingData) -> Start:
    """The bundle or the pre-trained model that the config names, or a fresh model; normalisers it lacks are
    fitted to the data.

    Raises: BundleError, ConfigError where there is none, ConfigError where it has another model config.
    """
    if training.start:
        bundle = load_bundle(training.start)
        check_fits(bundle.contract, contract, file.model)
        wanted = _as_stored(file, bundle.model)
        check_same_model(_headless(bundle.file, wanted) if training.new_head else bundle.file, wanted, training.start)
        model = _with_new_head(bundle, wanted, contract, training.start) if training.new_head else bundle.model
        tokenizer = learn_words(model, bundle.tokenizer, data.instructions)
        return Start(model, tokenizer,
                     Normalizers(action=bundle.action_normalizer, state=bundle.state_normalizer),
                     bundle.provenance.get("statistics", f"those of {training.start}"))
    fitted, key = data.statistics.normalizers, data.statistics.key
    if training.grounding:
        grounded = load_grounding(training.grounding)
        check_same_model(grounded.file, file, training.grounding)
        tokenizer = learn_words(grounded.model, grounded.tokenizer, data.instructions)
        return Start(grounded.model, tokenizer, Normalizers(action=fitted.action, state=grounded.state_normalizer), key)
    tokenizer = resolve(BACKBONES, file.model.backbone, "backbone").tokenizer(file.model, data.instructions)
    return Start(build_model(file.model, contract, tokenizer.vocabulary_size), tokenizer, fitted, key)


def _headless(file: ModelFile, wanted: ModelFile) -> ModelFile:
    """The file with what belongs to the action head as it is wanted."""
    head = {key: getattr(wanted.model, key) for key in HEAD_KEYS}
    return file.model_copy(update={"model": file.model.model_copy(update=head)})


def _with_new_head(bundle: Bundle, wanted: ModelFile, contract: RobotContract, where: str) -> VLAModel:
    """A model with the bundle's weights and a fresh action head. Raises: ConfigError where these do not go together."""
    model = build_model(wanted.model, contract, bundle.tokenizer.vocabulary_size)
    kept = {name: weight for name, weight in bundle.model.state_dict().items() if not name.startswith("head.")}
    try:
        model.load_state_dict(kept | {f"head.{name}": weight for name, weight in model.head.state_dict().items()})
    except RuntimeError as problem:
        raise ConfigError(f"new_head: the weights of {where} do not fit beside action_head {wanted.model.action_head} "
                          f"({str(problem).splitlines()[-1].strip()}); a discrete head brings words and queries of its "
                          "own: train it with its backbone") from None
    return model


def _as_stored(file: ModelFile, model: VLAModel) -> ModelFile:
    """The file as a bundle holds it: with what its backbone adds."""
    options = file.model.backbone_options | model.backbone.stored_options()
    return file.model_copy(update={"model": file.model.model_copy(update={"backbone_options": options})})
