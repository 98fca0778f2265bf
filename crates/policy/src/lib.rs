//! Who may use which route: the only maker of permits.
