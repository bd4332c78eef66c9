//! CNI main plugin: one routed veth pair per pod.
