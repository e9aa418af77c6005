"""Options as people write them, on a command line and in YAML, as the values that annotations ask for.

The annotations of a function, and of the dataclasses among its options, are the only list of what there is: what is
a group, what is a list, and what may be left empty. One mechanism reads them for all verbs: `command_line` takes the
words apart, `values` makes a value of each, as `annotations` asks, and `strict_yaml` reads the files. A function of
many options takes them as one dataclass, by `whole`.
"""

from raycsr.options.annotations import Hints, forms_of, hints_of
from raycsr.options.command_line import read_words
from raycsr.options.values import as_hinted, listed, read_config
from raycsr.options.whole import arguments_of, takes

__all__ = ["Hints", "arguments_of", "as_hinted", "forms_of", "hints_of", "listed", "read_config", "read_words", "takes"]
