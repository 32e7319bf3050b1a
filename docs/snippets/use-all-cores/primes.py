from pymicro import Service


class Primes:
    async def count(self, below: int) -> int:
        return sum(all(number % divisor for divisor in range(2, number)) for number in range(2, below))


service = Service("primes")
service.handle(Primes())

if __name__ == "__main__":
    service.run(workers=2)
