//! Running another plugin (spec section 4, "Plugin Delegation").
