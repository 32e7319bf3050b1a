service Greeter {
    string hello(1: string name),
    binary echo(1: binary data),
}
