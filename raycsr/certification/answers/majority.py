"""`majority`: the top class where more than half of the votes are for it, as an abstention at 1/2."""

from raycsr.certification.answers.answer import AnswerKind

MAJORITY_KIND = AnswerKind(("majority",), lambda text, num_classes, class_names: (0.5,))
