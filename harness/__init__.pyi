"""The types of what `harness/__init__.py` loads when it is first used."""

from harness.api import account_memory as account_memory
from harness.api import account_time as account_time
from harness.api import compare as compare
from harness.api import history as history
from harness.api import inspect as inspect
from harness.api import measure as measure
from harness.api import measure_roofline as measure_roofline
from harness.api import predict as predict
from harness.api import read_records as read_records
from harness.api import sweep as sweep
from harness.api import to_dicts as to_dicts
from harness.api import to_frame as to_frame
from harness.api import write_text as write_text
from harness.errors import HarnessError as HarnessError
from harness.errors import NativeError as NativeError
from harness.errors import StoreError as StoreError
from harness.errors import UsageError as UsageError
from harness.events import Event as Event
from harness.events import Measured as Measured
from harness.events import Progress as Progress
from harness.events import Remark as Remark
from harness.evidence.medians import Interval as Interval
from harness.records.cells import Failure as Failure
from harness.records.cells import Machine as Machine
from harness.records.cells import Record as Record
from harness.records.cells import Sample as Sample
from harness.records.kinds import Entry as Entry
from harness.records.memory import MemoryRecord as MemoryRecord
from harness.records.ollama import Comparison as Comparison
from harness.records.parity import Parity as Parity
from harness.records.placements import PlacementResult as PlacementResult
from harness.records.roofline import Roof as Roof
from harness.records.statistics import Summary as Summary
from harness.records.statistics import summarize as summarize
from harness.records.statistics import token_times as token_times
from harness.records.text import TextRun as TextRun
from harness.records.time_ledger import TimeLedger as TimeLedger
from harness.records.time_ledger import make_time_ledger as make_time_ledger
from harness.records.token_time import TimeRecord as TimeRecord
from harness.runs.inspection import Inspection as Inspection
from harness.runs.placements import Sweep as Sweep
from harness.runs.predict import PredictRequest as PredictRequest
from harness.spec import RunSpec as RunSpec
from harness.speed.prediction import Prediction as Prediction

__version__: str
