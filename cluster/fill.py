"""Puts the words of cluster/words.sh, which a shell has read, where ${WORD} stands in what comes in.

kubectl kustomize cluster | python cluster/fill.py | kubectl apply --filename -
"""

import os
import re
import sys

_WORD = re.compile(r"\$\{([A-Z_]+)\}")  # `$RAY_HEAD_IP` is Ray's, `${run}` is Grafana's: both stay

if __name__ == "__main__":
    text = sys.stdin.read()
    empty = sorted({word for word in _WORD.findall(text) if not os.environ.get(word)})
    if empty:
        sys.exit(f"fill.py: {', '.join(empty)} not set; set in cluster/words.sh, then `. cluster/words.sh`")
    sys.stdout.write(_WORD.sub(lambda found: os.environ[found[1]], text))
