//! Looking for a delegate's executable (spec section 4: "plugins must find it in CNI_PATH").

use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use super::DelegateError;
use crate::Environment;

/// The first executable regular file of that name in `CNI_PATH`; symbolic links are followed.
pub(super) fn find(plugin_type: &str, environment: &Environment) -> Result<PathBuf, DelegateError> {
    if !is_file_name(plugin_type) {
        return Err(DelegateError::BadType { plugin_type: plugin_type.to_owned() });
    }
    let mut searched = Vec::new();
    for folder in environment.cni_path().0.iter().filter(|folder| !folder.as_os_str().is_empty()) {
        let program = folder.join(plugin_type);
        match obstacle(&program) {
            None => return Ok(program),
            Some(reason) => searched.push(format!("{} ({reason})", folder.display())),
        }
    }
    let searched = if searched.is_empty() { "nothing, CNI_PATH is empty".to_owned() } else { searched.join(", ") };
    Err(DelegateError::NotFound { plugin_type: plugin_type.to_owned(), searched })
}

fn is_file_name(plugin_type: &str) -> bool {
    let mut components = Path::new(plugin_type).components();
    let single = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    single && !plugin_type.contains(['/', '\0'])
}

/// Why this file cannot be run, if so.
fn obstacle(program: &Path) -> Option<String> {
    match program.metadata() {
        Err(error) => Some(error.to_string()),
        Ok(metadata) if !metadata.is_file() => Some("not a regular file".to_owned()),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => Some("not executable".to_owned()),
        Ok(_) => None,
    }
}
