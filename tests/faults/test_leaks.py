"""Long runs against a steady one per cent of every common fault: what the process holds stays as it is."""
