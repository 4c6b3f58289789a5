//! The path of a parameter in its module: dotted field names, without the levels that only our types have.
//!
//! burn enters an enum level under the name of its variant (container `Enum:<type>`). A kind of backbone or detector is such a
//! level, and published weights do not have it.

/// Where a module visitor or mapper is. Both directions of a visit must be told.
#[derive(Debug, Clone, Default)]
pub struct ModulePath {
    parts: Vec<String>,
}

/// How burn names the container of an enum's variant (`burn-derive` 0.22.1, `module/codegen_enum.rs`).
const ENUM: &str = "Enum:";

impl ModulePath {
    /// The visitor enters a field of a `container`.
    pub fn enter(&mut self, name: &str, container: &str) {
        if !container.starts_with(ENUM) {
            self.parts.push(name.to_owned());
        }
    }

    /// The visitor leaves the field it has entered last.
    pub fn exit(&mut self, container: &str) {
        if !container.starts_with(ENUM) {
            self.parts.pop();
        }
    }

    /// The path of the current parameter, such as `backbone.patch_embed.proj.weight`.
    pub fn name(&self) -> String {
        self.parts.join(".")
    }

    /// The path of the layer that holds the current parameter.
    pub fn layer(&self) -> String {
        self.parts[..self.parts.len().saturating_sub(1)].join(".")
    }

    /// The last part of the path, such as `weight`.
    pub fn last(&self) -> &str {
        self.parts.last().map_or("", String::as_str)
    }
}
