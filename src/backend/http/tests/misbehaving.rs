//! Servers that misbehave, each with its exact typed error.

use super::*;
