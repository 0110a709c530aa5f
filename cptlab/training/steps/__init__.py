"""How the loss of a step is computed: the plain step and the fast one."""
