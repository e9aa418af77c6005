"""All that knows Ray: pools of workers, and what is done on them."""
