"""`argmax`: the top class, always."""

from raycsr.certification.answers.answer import AnswerKind

ARGMAX_KIND = AnswerKind(("argmax",), lambda text, num_classes, class_names: (0.0,))
