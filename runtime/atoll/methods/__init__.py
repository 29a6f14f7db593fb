"""The training methods: pure functions with the papers' names, and classes that call them."""
