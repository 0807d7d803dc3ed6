//! The control file, through the real shared object. One process has one control file, so the tests
//! take turns: each holds the `Scene`.

mod children;
mod files;
mod rules;
mod scene;
mod tokens;
