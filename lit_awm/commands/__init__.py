"""The commands of ``lit-awm``, one a file; ``lit_awm.cli`` imports the one that is called."""
