//! The parameters in the environment: which are needed, and what may be in them.

use super::protocol::coded;
use super::{ANY, cases};
use crate::host::Host;
use crate::host::pod::Pod;
use crate::verdict::{Verdict, ensure};

cases! { "parameters":
    "IO-8a" since "1.0.0" in "5, Error" for ANY => |host| missing(host, "ADD", &["CNI_CONTAINERID"]),
        "ADD without CNI_CONTAINERID has code 4 and names it",
        "4: Invalid necessary environment variables. The error message must contain the names of invalid variables.",
        "ADD without the variable; code must be 4 and the text must hold the variable's name.";
    "IO-8b" since "1.0.0" in "5, Error" for ANY => |host| missing(host, "ADD", &["CNI_NETNS"]),
        "ADD without CNI_NETNS has code 4 and names it",
        "4: Invalid necessary environment variables. The error message must contain the names of invalid variables.",
        "ADD without the variable; code must be 4 and the text must hold the variable's name.";
    "IO-8c" since "1.0.0" in "5, Error" for ANY => |host| missing(host, "ADD", &["CNI_IFNAME"]),
        "ADD without CNI_IFNAME has code 4 and names it",
        "4: Invalid necessary environment variables. The error message must contain the names of invalid variables.",
        "ADD without the variable; code must be 4 and the text must hold the variable's name.";
    "IO-8d" since "1.0.0" in "5, Error" for ANY => |host| missing(host, "DEL", &["CNI_CONTAINERID"]),
        "DEL without CNI_CONTAINERID has code 4 and names it",
        "4: Invalid necessary environment variables. The error message must contain the names of invalid variables.",
        "DEL without the variable; code must be 4 and the text must hold the variable's name.";
    "IO-8e" since "1.0.0" in "5, Error" for ANY => |host| missing(host, "DEL", &["CNI_IFNAME"]),
        "DEL without CNI_IFNAME has code 4 and names it",
        "4: Invalid necessary environment variables. The error message must contain the names of invalid variables.",
        "DEL without the variable; code must be 4 and the text must hold the variable's name.";
    "IO-8f" since "1.0.0" in "5, Error" for ANY => |host| missing(host, "CHECK", &["CNI_NETNS"]),
        "CHECK without CNI_NETNS has code 4 and names it",
        "4: Invalid necessary environment variables. The error message must contain the names of invalid variables.",
        "CHECK without the variable; code must be 4 and the text must hold the variable's name.";
    "IO-8g" since "1.0.0" in "5, Error" for ANY => |host| missing(host, "ADD", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
        "All missing variables are named together",
        "4: The error message must contain the names of invalid variables.",
        "ADD without three variables; code must be 4 and the text must hold the names of all.";
    "IO-8h" since "1.0.0" in "5, Error" for ANY => unknown_command,
        "An unknown command has code 4 and names CNI_COMMAND",
        "4: Invalid necessary environment variables, like CNI_COMMAND. The error message must contain the names of invalid variables.",
        "A call with CNI_COMMAND=FROBNICATE; code must be 4 and the text must hold CNI_COMMAND.";
    "IO-8i" since "1.0.0" in "2, Parameters" for ANY => |host| id_refused(host, ""),
        "An empty container id is refused",
        "CNI_CONTAINERID: Must not be empty.",
        "ADD with CNI_CONTAINERID set to nothing; code must be 4.";
    "IO-10a" since "1.0.0" in "2, Parameters" for ANY => |host| id_refused(host, "-leading"),
        "A container id that begins with a hyphen is refused",
        "CNI_CONTAINERID: Must start with an alphanumeric character.",
        "ADD with such an id; code must be 4.";
    "IO-10b" since "1.0.0" in "2, Parameters" for ANY => |host| id_refused(host, "a/../b"),
        "A container id with a slash is refused",
        "CNI_CONTAINERID: any combination of one or more alphanumeric characters, underscore, dot or hyphen.",
        "ADD with such an id; code must be 4.";
    "IO-10c" since "1.0.0" in "2, Parameters" for ANY => |host| id_refused(host, "a b"),
        "A container id with a space is refused",
        "CNI_CONTAINERID: any combination of one or more alphanumeric characters, underscore, dot or hyphen.",
        "ADD with such an id; code must be 4.";
    "IO-10d" since "1.0.0" in "2, Parameters" for ANY => |host| id_refused(host, "a\nb"),
        "A container id with a line break is refused",
        "CNI_CONTAINERID: any combination of one or more alphanumeric characters, underscore, dot or hyphen.",
        "ADD with such an id, whose end an unanchored pattern would overlook; code must be 4.";
    "IO-10e" since "0.1.0" in "2, Parameters" for ANY => |host| id_taken(host, "0A.b_c-9"),
        "A container id of every allowed character is taken",
        "CNI_CONTAINERID: any combination of one or more alphanumeric characters, underscore, dot or hyphen.",
        "ADD and DEL with such an id; both must succeed.";
    "IO-10f" since "0.1.0" in "2, Parameters" for ANY => |host| id_taken(host, &"0f".repeat(32)),
        "A container id of 64 hexadecimal digits is taken",
        "CNI_CONTAINERID: A unique plaintext identifier for a container, allocated by the runtime.",
        "ADD and DEL with such an id, as containerd and CRI-O make them; both must succeed.";
    "IO-10g" since "0.1.0" in "2, Parameters" for ANY => |host| id_taken(host, &"long-id.".repeat(24).chars().take(190).collect::<String>()),
        "A long container id is taken",
        "CNI_CONTAINERID: A unique plaintext identifier for a container, allocated by the runtime.",
        "ADD and DEL with an id of 190 characters; both must succeed.";
    "IO-10h" since "1.0.0" in "1, Configuration format" for ANY => |host| name_refused(host, "a/b"),
        "A network name with a slash is refused",
        "name: Must not contain characters disallowed in file paths.",
        "ADD with such a name; code must be 7.";
    "IO-10i" since "1.0.0" in "1, Configuration format" for ANY => |host| name_refused(host, "-a"),
        "A network name that begins with a hyphen is refused",
        "name: Must start with an alphanumeric character.",
        "ADD with such a name; code must be 7.";
    "IO-10j" since "1.0.0" in "1, Configuration format" for ANY => |host| name_refused(host, ""),
        "An empty network name is refused",
        "name: Must start with an alphanumeric character.",
        "ADD with such a name; code must be 7.";
    "IO-11a" since "1.0.0" in "2, Parameters" for ANY => |host| ifname_refused(host, "sixteen-letters."),
        "An interface name of 16 bytes is refused",
        "CNI_IFNAME: if the plugin is unable to use this interface name it must return an error.",
        "ADD with such a name, which the kernel has no room for; it must fail with an error object, whatever its code.";
    "IO-11b" since "1.0.0" in "2, Parameters" for ANY => |host| ifname_refused(host, "."),
        "The interface name . is refused",
        "CNI_IFNAME: if the plugin is unable to use this interface name it must return an error.",
        "ADD with this name, which the kernel does not take; it must fail with an error object, whatever its code.";
    "IO-11c" since "1.0.0" in "2, Parameters" for ANY => |host| ifname_refused(host, ".."),
        "The interface name .. is refused",
        "CNI_IFNAME: if the plugin is unable to use this interface name it must return an error.",
        "ADD with this name, which the kernel does not take; it must fail with an error object, whatever its code.";
    "IO-11d" since "1.0.0" in "2, Parameters" for ANY => |host| ifname_refused(host, "a/b"),
        "An interface name with a slash is refused",
        "CNI_IFNAME: if the plugin is unable to use this interface name it must return an error.",
        "ADD with such a name, which the kernel does not take; it must fail with an error object, whatever its code.";
    "IO-11e" since "1.0.0" in "2, Parameters" for ANY => |host| ifname_refused(host, "a b"),
        "An interface name with a space is refused",
        "CNI_IFNAME: if the plugin is unable to use this interface name it must return an error.",
        "ADD with such a name, which the kernel does not take; it must fail with an error object, whatever its code.";
    "IO-11f" since "1.0.0" in "2, Parameters" for ANY => |host| ifname_refused(host, "a:b"),
        "An interface name with a colon is refused",
        "CNI_IFNAME: if the plugin is unable to use this interface name it must return an error.",
        "ADD with such a name, which the kernel does not take; it must fail with an error object, whatever its code.";
    "IO-11g" since "0.1.0" in "2, Parameters" for super::MAIN => longest_ifname,
        "An interface name of 15 bytes is used as it is",
        "CNI_IFNAME: Name of the interface to create inside the container.",
        "ADD and DEL with a name of 15 bytes; `ip -j link` in the namespace must show it.";
    "IO-12a" since "0.1.0" in "2, Parameters" for ANY => without_args,
        "CNI_ARGS may be missing",
        "Optional environment parameters: CNI_ARGS.",
        "ADD and DEL without the variable; both must succeed.";
    "IO-12b" since "0.1.0" in "2, Parameters" for ANY => kubernetes_args,
        "CNI_ARGS of Kubernetes are taken in any order",
        "CNI_ARGS: Alphanumeric key-value pairs separated by semicolons.",
        "ADD and DEL with containerd's five pairs in three orders; all must succeed.";
    "IO-12c" since "0.1.0" in "2, Parameters" for super::ADDRESSING => path_with_gaps,
        "CNI_PATH may hold folders that are empty or missing",
        "CNI_PATH: List of paths to search for CNI plugin executables.",
        "ADD and DEL with two useless folders before the right ones; both must succeed.";
}

fn missing(host: &Host, command: &str, names: &[&str]) -> Verdict {
    let pod = host.pod()?;
    let mut call = host.call_for(command, &pod);
    for name in names {
        call = call.without_env(name);
    }
    let (code, text) = call.run()?.code()?;
    ensure!(code == 4, "the code is {code} instead of 4: {text}");
    for name in names {
        ensure!(text.contains(name), "the text does not name {name}: {text}");
    }
    Ok(())
}

fn unknown_command(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let (code, text) = host.call_for("FROBNICATE", &pod).run()?.code()?;
    ensure!(code == 4 && text.contains("CNI_COMMAND"), "code {code}, text: {text}");
    Ok(())
}

fn id_refused(host: &Host, id: &str) -> Verdict {
    let pod = host.pod()?;
    coded(&host.call_for("ADD", &pod).env("CNI_CONTAINERID", id).run()?, &[4])
}

fn name_refused(host: &Host, name: &str) -> Verdict {
    let pod = host.pod()?;
    coded(&host.call_for("ADD", &pod).key("name", name.into()).run()?, &[7])
}

fn ifname_refused(host: &Host, ifname: &str) -> Verdict {
    let pod = host.pod()?;
    super::sorry(&host.call_for("ADD", &pod).env("CNI_IFNAME", ifname).run()?).map(drop)
}

fn taken(host: &Host, pod: &Pod) -> Verdict {
    let result = host.attach(pod)?;
    host.detach(pod, Some(&result))
}

fn id_taken(host: &Host, id: &str) -> Verdict {
    taken(host, &host.pod_called(|_| id.to_owned())?)
}

fn longest_ifname(host: &Host) -> Verdict {
    let pod = host.pod()?.second_interface("fifteen-bytes.0");
    host.remember(&pod);
    let result = host.attach(&pod)?;
    ensure!(pod.link()?.is_some(), "there is no interface {}", pod.ifname);
    host.detach(&pod, Some(&result))
}

fn without_args(host: &Host) -> Verdict {
    let pod = host.pod()?;
    for command in ["ADD", "DEL"] {
        host.call_for(command, &pod).without_env("CNI_ARGS").run()?.success()?;
    }
    Ok(())
}

fn kubernetes_args(host: &Host) -> Verdict {
    let mut pairs = [
        "IgnoreUnknown=1",
        "K8S_POD_NAMESPACE=default",
        "K8S_POD_NAME=web-5d4f8c7b9-x2x7k",
        "K8S_POD_INFRA_CONTAINER_ID=5c1f0e",
        "K8S_POD_UID=0a1b2c3d-0000-4000-8000-000000000001",
    ];
    for _ in 0..3 {
        let mut pod = host.pod()?;
        pod.args = pairs.join(";");
        taken(host, &pod)?;
        pairs.rotate_left(2);
    }
    Ok(())
}

fn path_with_gaps(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let mut path = std::ffi::OsString::from("/run/not-there:/run/netns:");
    path.push(host.cni_path());
    for command in ["ADD", "DEL"] {
        host.call_for(command, &pod).env("CNI_PATH", path.clone()).run()?.success()?;
    }
    Ok(())
}
