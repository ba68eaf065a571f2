"""What every run that learns needs: a directory of its own, a state to go on from, a record, a way to be stopped."""
