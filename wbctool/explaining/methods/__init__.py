"""Methods of class-activation maps: one module each, which declares a `CamMethod`; nothing else knows its name."""
