"""A training as it is begun, told and written down."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from raycsr.distributed.cluster import check_location
from raycsr.distributed.options import WorkerOptions
from raycsr.distributed.plans import TrainingPlan
from raycsr.distributed.pool import worker_device
from raycsr.distributed.sampling.classes import named_otherwise
from raycsr.distributed.search.space import first_difference, with_later_options
from raycsr.distributed.training.arguments import TrainArguments, TrainConfig
from raycsr.distributed.training.inputs import refuse_other_inputs
from raycsr.distributed.training.plan import Plan, prepare
from raycsr.distributed.training.ray_train import check_workers
from raycsr.errors import Mistakes, UserError
from raycsr.models.prepare import resolve_precision
from raycsr.results import SCHEMA_VERSION, refuse_other_schema
from raycsr.store import Store


def check(asked: TrainArguments) -> Plan:
    """Checks all that can be checked before training starts, and creates the model.

    Raises:
        UserError: naming all that is wrong.
    """
    mistakes = Mistakes()
    with mistakes.noted():
        check_workers(asked.workers, asked.training)
    with mistakes.noted():
        check_location(asked.results)
    with mistakes.noted():
        plan = prepare(asked.config)
    mistakes.refuse()
    return plan


def default_name(config: TrainConfig) -> str:
    """The objective, the model, sigma and a digest of all options."""
    model = Path(config.model.name).stem
    facts = asdict(config)
    if not config.model.denoisers:  # or what was begun before there were any would have another name
        del facts["model"]["denoiser"]
    in_front = facts["model"].get("denoiser") or []
    for one in in_front if isinstance(in_front, list) else [in_front]:
        if one["levels"] is None:  # for the same reason
            del one["levels"]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
    return f"{config.objective.name}-{model}-sigma{config.sigma:g}-{digest}"


def plan_of(plan: Plan, checkpoint: str, workers: WorkerOptions, begun_in: str | None = None) -> TrainingPlan:
    """The plan of a training; `begun_in` is the precision of one that goes on."""
    config = plan.config
    precision, device = begun_in or config.training.precision, None
    if workers.number == 1:  # what auto is on other workers is known after their first epoch
        device = str(worker_device())
        precision = resolve_precision(precision, worker_device())
    return TrainingPlan(
        checkpoint=checkpoint,
        model=config.model.label,
        num_parameters=sum(p.numel() for p in plan.model.network.parameters()),
        input_size=plan.model.preprocessing.input_size,
        precision=precision,
        device=device,
        workers=workers.number,
        objective=config.objective.name,
        objective_args=config.objective.args,
        sigma=config.sigma,
        costs=config.costs,
        data=str(plan.source),
        num_images=len(plan.held_out.left),
        num_held_out=len(plan.held_out.random) + len(plan.held_out.seed_class),
        streamed=plan.stream,
        reading=plan.reading,
        epochs=config.training.epochs,
        batch_size=config.training.batch_size,
        notes=(*plan.listing.notes, *named_otherwise(plan.listing, plan.model)),
        denoisers=plan.model.parts,
        part=plan.part,
    )


def words_of_epoch(entry: dict) -> str:
    """One line about an epoch."""
    text = (
        f"epoch {entry['number']:>3}: loss {entry['loss']:.4f}, lr {entry['lr']:.2g}, "
        f"{entry['images_per_second']:,.0f} images/s in {entry['precision']}"
    )
    if entry["metrics"] is not None:
        numbers = {name: v for name, v in entry["metrics"].items() if name != "collapsed"}
        text += "; " + ", ".join(f"{name} {'-' if v is None else f'{v:.3f}'}" for name, v in numbers.items())
        if entry["metrics"].get("collapsed"):  # histories of before have none
            text += f"; collapsed: {entry['metrics']['collapsed']}"
    return text


def claim(folder: Store, name: str, plan: Plan) -> None:
    """Writes the options down; refuses a name that another training has, and a folder that cannot be written."""
    if not folder.exists(f"{name}.json"):
        folder.write(f"{name}.json", history_json(plan, []))
        return
    config = plan.config
    where = f"{folder.location}/{name}.json"
    try:
        begun = dict(json.loads(folder.read(f"{name}.json")))
        refuse_other_schema(begun, where)
        stored = with_later_options(dict(begun["config"]), config)
        changed = first_difference(stored, json.loads(_config_json(config)))
        if changed is None:
            refuse_other_inputs(f"{folder.location}/{name}.pt", begun.get("inputs"), plan.inputs)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(
            f"{where} is damaged; delete it to go on from the checkpoint under these options, or give another --name"
        ) from error
    if changed is not None:
        raise UserError(
            f"{folder.location}/{name}.pt was trained with {changed}; put it back to go on, or give another --name"
        )


def _config_json(config: TrainConfig) -> str:
    return json.dumps(asdict(config), sort_keys=True)


def history_json(plan: Plan, history: list[dict]) -> bytes:
    """The options, what stands behind them and the epochs so far, as they are stored beside the checkpoint."""
    facts = {"config": asdict(plan.config), "inputs": plan.inputs, "history": history}
    return json.dumps({"schema_version": SCHEMA_VERSION, **facts}, indent=1).encode()
